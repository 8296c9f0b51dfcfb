"""Talk to a model: `python -m solar.chat MODEL [key=value ...]`.

MODEL is a model folder, a model artifact, or the name of a stage of the last run. In a conversation /new forgets what
was said; Ctrl-D or /quit ends it, Ctrl-C stops an answer.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from solar.arguments import run
from solar.artifacts.damage import refuse_damaged
from solar.artifacts.last_run import last_run
from solar.errors import ConfigError, printable
from solar.network.device import check_device, device_for

Message = dict[str, str]


@dataclass
class Options:
    """Options of the command line."""

    prompt: str | None = None
    """Answer once and end; without it, lines on standard input are answered one by one."""
    max_new_tokens: int = 256
    """At most this many tokens an answer."""
    temperature: float = 0.0
    """0: always the likeliest token; 0.7: more varied answers."""
    top_p: float = 1.0
    """Sample from the likeliest tokens that together have this probability."""
    seed: int = 0
    """Seed of the sampling."""
    system: str | None = None
    """System message before the first question."""
    device: str = "auto"
    """`cpu`, `cuda`, `mps`, or `auto`: the GPU of this machine if there is one, else its CPU."""
    root: Path = Path("outputs")
    """The folder of the runs (`paths.root`)."""

    def check(self) -> None:
        """Raises `ConfigError` for a number out of range."""
        if self.max_new_tokens < 1 or not self.temperature >= 0 or not 0 < self.top_p <= 1:
            raise ConfigError(
                "expected max_new_tokens of 1 or more, temperature of 0 or more, top_p above 0 and up to 1"
            )
        check_device(self.device)


def find_model(name: str, root: Path) -> Path:
    """The model folder that `name` means: a path, or the name of a stage of the last run under `root`.

    Raises:
        ConfigError: there is no such folder and no such stage.
    """
    for folder in (Path(name), Path(name) / "model"):
        if (folder / "config.json").is_file() or (folder / "adapter_config.json").is_file():
            return folder
    wrong = "holds no model (no config.json)" if Path(name).exists() else "no such folder"
    latest = last_run(root)
    if latest is None:
        raise ConfigError(f"{name}: {wrong}, and no run under {root / 'runs'}; give a model's folder or root=DIR")
    models = {stage: folder / "model" for stage, folder in latest.folders.items() if (folder / "model").is_dir()}
    if name not in models:
        stages = ", ".join(models) or "none"
        raise ConfigError(f"{name}: {wrong}, and no model of the last run ({latest.record}), which has {stages}")
    return models[name]


class Speaker:
    """A model that answers, and its conversation so far."""

    def __init__(self, folder: Path, options: Options) -> None:
        from solar.data.encode.encode import Encoder
        from solar.evaluation.loading import load

        self.decoder, self.tokenizer = load(folder, device_for(options.device))
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
                sys.stdout.write(printable(part, keep="\n\t"))
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


def _chat(names: list[str], options: Options) -> None:
    options.check()
    folder = find_model(names[0], options.root)
    refuse_damaged(folder)
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


def main(words: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    try:
        return run(words, __doc__ or "", Options, ("MODEL",), _chat)
    except (KeyboardInterrupt, BrokenPipeError):
        return 130


if __name__ == "__main__":
    sys.exit(main())
