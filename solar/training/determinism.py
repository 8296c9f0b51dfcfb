"""The same bytes from the same training on a GPU: kernels that add up in a fixed order."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from solar.config.root import TrainerConfig
from solar.errors import StageError


@contextmanager
def determinism(trainer: TrainerConfig) -> Iterator[None]:
    """Deterministic mode, if the trainer asks for it. Attention then takes a deterministic way (`kernels/choice.py`).

    Flash attention has a deterministic backward pass in this mode; the other fused kernels are switched off.

    Raises:
        StageError: an operation has no deterministic kernel on this device.
    """
    if not trainer.deterministic:
        yield
        return
    os.environ.update(trainer.environment)
    cuda, cudnn = torch.backends.cuda, torch.backends.cudnn
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
        (cudnn.deterministic, cudnn.benchmark),
        (cuda.mem_efficient_sdp_enabled(), cuda.cudnn_sdp_enabled()),  # type: ignore[no-untyped-call]
    )
    _switch(True, False, (True, False), (False, False))
    try:
        yield
    except RuntimeError as error:
        if (found := re.search(r"(\S+) does not have a deterministic implementation", str(error))) is None:
            raise
        raise StageError(
            f"trainer.deterministic: {found[1]} has no deterministic kernel on this device; set it to false"
        ) from error
    finally:
        _switch(*before)


def _switch(algorithms: bool, filling: bool, cudnn: tuple[bool, bool], attention: tuple[bool, bool]) -> None:
    torch.use_deterministic_algorithms(algorithms)
    # solar reads no memory that nothing has written
    torch.utils.deterministic.fill_uninitialized_memory = filling  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn
    torch.backends.cuda.enable_mem_efficient_sdp(attention[0])
    torch.backends.cuda.enable_cudnn_sdp(attention[1])
