"""Synthetic mathematics: the seed questions, the model that rephrases and answers them, and how many of each."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from omegaconf import MISSING

from solar.config.base import StageConfig, content, pace, reference
from solar.config.data import PAIR_FORMATS, Format, SourceConfig


@dataclass
class SynthesizeConfig(StageConfig):
    """Rephrase seed questions, answer them, keep the answers that reach the seed's final answer (paper, section 3)."""

    seeds: SourceConfig = field(default_factory=SourceConfig)
    """Questions with worked answers whose result is in a box, after `####` or after "The answer is"."""
    model: str | None = reference("model", None)
    """The model that rephrases and answers, on this machine; otherwise give `base_url` and `server_model`."""
    base_url: str | None = None
    """A server that speaks the OpenAI protocol, `http://host:port/v1`; its key is in `OPENAI_API_KEY`."""
    server_model: str | None = None
    """The model's name on that server."""
    question_prompt: str | None = content("path", None)
    """A text file with `{question}`; null: `solar/data/synthesis/prompts/rephrase_question.txt`."""
    answer_prompt: str | None = content("path", None)
    """A text file with `{question}` (rephrased) and, if the model may see the seed's answer, `{answer}`; null:
    `solar/data/synthesis/prompts/answer_question.txt`."""
    questions_per_seed: int = MISSING
    """Rephrasings of each seed question."""
    answers_per_question: int = MISSING
    """Answers to each rephrased question."""
    temperature: float = MISSING
    """Sampling temperature of questions and answers; 0 takes the likeliest token."""
    max_new_tokens: int = MISSING
    """Tokens that a question or an answer may have."""
    requests_per_minute: int | None = pace(None)
    """Limit for requests to a server; null: no limit."""
    connections: int = pace(8)
    """Requests to a server at the same time."""
    seed: int = MISSING
    """Seed of the sampling."""

    def problems(self) -> Iterator[str]:
        yield from (f"seeds.{problem}" for problem in self.seeds.problems())
        if self.seeds.drop_tasks:
            yield "seeds.drop_tasks: not for seeds; drop tasks where the result is prepared"
        if self.seeds.format in (Format.text, *PAIR_FORMATS):
            yield f"seeds.format: found {self.seeds.format.value}, expected questions with one answer each"
        if (self.model is None) == (self.base_url is None):
            yield "model, base_url: expected exactly one of them"
        if (self.base_url is None) != (self.server_model is None):
            yield "server_model: expected with base_url, and only with it"
        for name in ("questions_per_seed", "answers_per_question", "max_new_tokens", "connections"):
            if getattr(self, name) < 1:
                yield f"{name}: found {getattr(self, name)}, expected at least 1"
        if self.requests_per_minute is not None and self.requests_per_minute < 1:
            yield f"requests_per_minute: found {self.requests_per_minute}, expected at least 1"
        if not self.temperature >= 0:
            yield f"temperature: found {self.temperature}, expected 0 or more"
