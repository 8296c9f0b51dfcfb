"""Real small models to measure."""

from pathlib import Path

import pytest

STORIES = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "stories260K"


@pytest.fixture(scope="session")
def stories():
    """A true base model of 260,032 parameters, and its tokenizer, which has no chat template."""
    if not STORIES.is_dir():
        pytest.skip("the model stories260K is not on this machine")
    from solar.evaluation.loading import load

    return load(STORIES)
