"""Whether the merged models were tuned with the same chat template; the merged model has that of the first."""

from collections.abc import Sequence
from pathlib import Path

from solar.weights.folder import ModelFolder
from solar.weights.travelling import chat_template


def template_notes(models: Sequence[ModelFolder]) -> tuple[str, ...]:
    """A line for the first model whose chat template is not the one that the merged model gets."""
    first = models[0].folder
    kept = _template(first)
    for model in models[1:]:
        if (other := _template(model.folder)) is not None and other != kept:
            difference = "has none" if kept is None else "has another one"
            way_out = "the merged model takes the first model's, so put the model first whose template should stay"
            return (f"chat template: {model.folder} has one, {first} {difference}; {way_out}",)
    return ()


def _template(folder: Path) -> str | None:
    """The chat template of a tokenizer, without the space around it that differs between files."""
    template = chat_template(folder)
    return template and template.strip()
