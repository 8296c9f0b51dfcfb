"""The random numbers of a step: a function of (seed, step, replica), so that a checkpoint holds no generator."""

import torch


def seed_step(seed: int, step: int, replica: int, device: torch.device) -> None:
    """Seed the draws of one step; logging, validating and resuming cannot shift them.

    Dropout draws depend on how a step is cut into micro-batches, too: a layer draws for a whole micro-batch at once.
    """
    mixed = (seed * 1_000_003 + step) * 65_537 + replica & (2**63 - 1)
    torch.default_generator.manual_seed(mixed)  # torch.manual_seed takes a millisecond: it formats the call stack
    if device.type == "cuda":
        torch.cuda.manual_seed(mixed)
