"""Real small models to measure."""

from pathlib import Path

import pytest
import transformers

STORIES = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "stories260K"

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


@pytest.fixture(scope="session")
def stories():
    """The decoder of a real base model of 260,032 parameters, and its tokenizer, which has no chat template."""
    if not STORIES.is_dir():
        pytest.skip("the model stories260K is not on this machine")
    from solar.evaluation.loading import load

    return load(STORIES)


@pytest.fixture(scope="session")
def plain_stories():
    """The same model, loaded and run by transformers alone."""
    if not STORIES.is_dir():
        pytest.skip("the model stories260K is not on this machine")
    return transformers.AutoModelForCausalLM.from_pretrained(STORIES, attn_implementation="eager").eval()
