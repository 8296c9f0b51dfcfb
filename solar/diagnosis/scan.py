"""Run every block of layers twice in a row, and rank the blocks by the loss that this adds before training."""

import time
from collections.abc import Callable
from typing import Any

from torch import Tensor

from solar.diagnosis.measures import mean_loss
from solar.diagnosis.virtual import VirtualModel


def scan_repeats(
    virtual: VirtualModel,
    input_ids_BT: Tensor,
    wall_seconds: float,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Loss added by running layers `start` up to, not including, `stop` twice, for every block until the time is up.

    Short blocks come first, so that a scan that runs out of time has tried all blocks of some sizes. Returns
    `base_loss`, the number of blocks `tried` and `possible`, and the ranked `repeats`.
    """
    base = mean_loss(virtual.record(input_ids_BT).logits_BTV, input_ids_BT)
    n, began = len(virtual.layers), time.perf_counter()
    blocks = [(start, start + size) for size in range(1, n + 1) for start in range(n - size + 1)]
    repeats = []
    for number, (start, stop) in enumerate(blocks, start=1):
        if time.perf_counter() - began > wall_seconds:
            break
        progress(f"repeat {number}/{len(blocks)}: layers {start}-{stop - 1}")
        run = virtual.run([*range(stop), *range(start, n)])
        gap = mean_loss(run.logits_BTV, input_ids_BT) - base
        repeats.append({"start": start, "stop": stop, "layers": n + stop - start, "step0_gap": gap})
    ranked = sorted(repeats, key=lambda block: (block["step0_gap"], block["stop"], block["start"]))
    return {"base_loss": base, "tried": len(repeats), "possible": len(blocks), "repeats": ranked}
