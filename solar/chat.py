"""Talk to a model: `python -m solar.chat PATH` or, for a stage of the last run, `python -m solar.chat sft`."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from solar.artifacts.last_run import last_run
from solar.errors import ConfigError, SolarError

Message = dict[str, str]

USAGE = """\
python -m solar.chat MODEL [key=value ...]

MODEL is a model folder, a model artifact, or the name of a stage of the last run.
  prompt="..."          answer once and end; without it, lines on standard input are answered one by one
  max_new_tokens=256    at most this many tokens an answer
  temperature=0         0: always the likeliest token; 0.7: more varied answers
  top_p=1               sample from the likeliest tokens that together have this probability
  seed=0                seed of the sampling
  system="..."          the system message of each conversation
  root=outputs          the folder of the runs
/new starts a new conversation; Ctrl-D or /quit ends the program, Ctrl-C stops an answer."""


@dataclass
class Options:
    """The words after the model's name."""

    prompt: str | None = None
    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    system: str | None = None
    root: str = "outputs"

    @classmethod
    def parse(cls, words: list[str]) -> "Options":
        """Raises `ConfigError` for a word that is no option, or a value of the wrong type.

        >>> Options.parse(["temperature=0.7", "prompt=a=b"])
        Options(prompt='a=b', max_new_tokens=256, temperature=0.7, top_p=1.0, seed=0, system=None, root='outputs')
        """
        options, known = cls(), [item.name for item in fields(cls)]
        for word in words:
            name, equals, value = word.partition("=")
            if not equals or name not in known:
                raise ConfigError(f"{word}: not an option, expected key=value with one of {', '.join(known)}")
            kind = {"max_new_tokens": int, "seed": int, "temperature": float, "top_p": float}.get(name, str)
            try:
                setattr(options, name, kind(value))
            except ValueError as error:
                raise ConfigError(f"{name}: found {value!r}, expected a number") from error
        if options.max_new_tokens < 1 or options.temperature < 0 or not 0 < options.top_p <= 1:
            raise ConfigError(
                "expected max_new_tokens of 1 or more, temperature of 0 or more, top_p above 0 and up to 1"
            )
        return options


def find_model(name: str, root: Path) -> Path:
    """The model folder that `name` means: a path, or the name of a stage of the last run under `root`.

    Raises:
        ConfigError: there is no such folder and no such stage.
    """
    for folder in (Path(name), Path(name) / "model"):
        if (folder / "config.json").is_file() or (folder / "adapter_config.json").is_file():
            return folder
    wrong = "holds no model (no config.json)" if Path(name).exists() else "no such folder"
    run = last_run(root)
    if run is None:
        raise ConfigError(f"{name}: {wrong}, and no run under {root / 'runs'}; give a model's folder or root=DIR")
    models = {stage: folder / "model" for stage, folder in run.folders.items() if (folder / "model").is_dir()}
    if name not in models:
        stages = ", ".join(models) or "none"
        raise ConfigError(f"{name}: {wrong}, and no model of the last run ({run.record}), which has {stages}")
    return models[name]


class Speaker:
    """A model that answers, and its conversation so far."""

    def __init__(self, folder: Path, options: Options) -> None:
        from solar.data.encode.encode import Encoder
        from solar.evaluation.loading import load

        self.decoder, self.tokenizer = load(folder)
        self.options = options
        self.encoder = Encoder(self.tokenizer)
        self.has_template = self.tokenizer.chat_template is not None
        self.messages: list[Message] = []
        self.forget()

    def forget(self) -> None:
        """Start a new conversation."""
        self.messages = [{"role": "system", "content": self.options.system}] if self.options.system else []

    def answer(self, text: str) -> Iterator[str]:
        """The answer, part by part. A model without a chat template continues each text, and remembers none."""
        if not self.has_template:
            stop = [] if self.tokenizer.eos_token_id is None else [self.tokenizer.eos_token_id]
            yield from self._write(self.encoder.text_prompt(text), stop)
            return
        messages: list[Message] = [*self.messages, {"role": "user", "content": text}]
        parts: list[str] = []
        for part in self._write(self.encoder.prompt(messages), self.encoder.end_of_turn_ids()):
            parts.append(part)
            yield part
        self.messages = [*messages, {"role": "assistant", "content": "".join(parts).strip()}]

    def _write(self, prompt: list[int], stop: list[int]) -> Iterator[str]:
        from solar.evaluation.generate import generate, words

        options = self.options
        sampling = (options.temperature, options.top_p, options.seed)
        ids = generate(self.decoder, prompt, stop, options.max_new_tokens, *sampling)
        return words(self.tokenizer, ids, prompt)


def talk(speaker: Speaker, texts: Iterator[str]) -> None:
    """Answer each text on standard output; an answer that Ctrl-C stops is not remembered."""
    for text in texts:
        if text == "/new":
            speaker.forget()
            continue
        try:
            for part in speaker.answer(text):
                sys.stdout.write(part)
                sys.stdout.flush()
        except KeyboardInterrupt:
            sys.stdout.write(" [stopped]")
        sys.stdout.write("\n")
        sys.stdout.flush()


def typed() -> Iterator[str]:
    """Lines typed at the prompt, until Ctrl-D, Ctrl-C or /quit."""
    import readline  # noqa: F401  (arrow keys and history at the prompt)

    while True:
        try:
            text = input("> ").strip()
        except (EOFError, KeyboardInterrupt):
            sys.stdout.write("\n")
            return
        if text == "/quit":
            return
        if text:
            yield text


def main(words: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    words = sys.argv[1:] if words is None else words
    if not words or words[0] in ("-h", "--help", "help"):
        sys.stdout.write(USAGE + "\n")
        return 0 if words else 2
    try:
        options = Options.parse(words[1:])
        folder = find_model(words[0], Path(options.root))
        speaker = Speaker(folder, options)
        if options.prompt is not None:
            talk(speaker, iter([options.prompt]))
        elif sys.stdin.isatty():
            way = "chat" if speaker.has_template else "no chat template: the model continues what you write"
            count = speaker.decoder.network.num_parameters()
            sys.stderr.write(f"{folder}  {count:,} parameters, {way}. /new starts a new conversation, Ctrl-D ends.\n")
            talk(speaker, typed())
        else:
            talk(speaker, (line.strip() for line in sys.stdin if line.strip()))
    except SolarError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except (KeyboardInterrupt, BrokenPipeError):
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
