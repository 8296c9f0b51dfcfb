"""A model that would be computed differently from what it is, is refused by name."""

from pathlib import Path

import pytest
from transformers import CohereConfig

from solar.errors import StageError
from solar.training.network import check_architecture


def test_scaled_logits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"logit_scale is set"):
        check_architecture(CohereConfig(logit_scale=0.0625), tmp_path)
