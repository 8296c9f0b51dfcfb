"""Which of several models go into one average, and what decides."""

from collections.abc import Iterator
from dataclasses import dataclass

from solar.config.base import StageConfig, reference


@dataclass
class SoupConfig(StageConfig):
    """Greedy soup (arXiv 2203.05482, recipe 1): average the best model with each next one that does not raise the
    held-out loss. Tokenizer and configuration are those of the best model.
    """

    models: list[str] = reference("model")
    """Tried from the best to the worst by their own loss."""
    data: str = reference("tokens")
    """Tokens whose `valid` split decides. Text that an evaluation reads, too, is then no longer new to the soup."""
    max_tokens: int | None = None
    """Read at most this many tokens of `data`; null: read all."""

    def problems(self) -> Iterator[str]:
        if self.models != ["*"] and len(self.models) < 2:
            yield f"models: found {len(self.models)}, expected at least two to choose from"
        if twice := sorted({model for model in self.models if self.models.count(model) > 1}):
            yield f"models: found {', '.join(twice)} more than once, expected each once"
        if self.max_tokens is not None and self.max_tokens < 1:
            yield f"max_tokens: found {self.max_tokens}, expected at least 1 or null"
