"""What the ranks of a training tell each other: sums, and requests that any rank may raise."""

from collections.abc import Mapping, Sequence

import pytorch_lightning as pl
import torch
from torch import Tensor

from solar.network.device import format_of_sums
from solar.training.distributed.sharding import ShardedStrategy


class RankedModule(pl.LightningModule):
    """A Lightning module whose ranks exchange numbers. Ranks that share the layers of one batch count as one."""

    @property
    def tensor_parallel(self) -> int:
        """Number of ranks that compute one batch together."""
        strategy = self.trainer.strategy
        return strategy.tensor_parallel if isinstance(strategy, ShardedStrategy) else 1

    @property
    def replicas(self) -> int:
        """Number of batches that are computed at a time."""
        return self.trainer.world_size // self.tensor_parallel

    def summed(self, values: Tensor) -> Tensor:
        """The sum over all replicas, the same on every rank."""
        if self.trainer.world_size == 1:
            return values
        total: Tensor = self.trainer.strategy.reduce(values, reduce_op="sum")
        return total / self.tensor_parallel

    def stacked_sums(self, totals: Mapping[str, Tensor | float]) -> Tensor:
        """The sums over all replicas in one exchange, [len(totals)] in float64 (MPS: float32), still on the device."""
        return self.summed(torch.stack([self._on_device(value) for value in totals.values()]))

    def _on_device(self, value: Tensor | float) -> Tensor:
        dtype = format_of_sums(self.device.type)
        if isinstance(value, Tensor):
            return value.to(self.device, dtype)
        return torch.full((), value, dtype=dtype, device=self.device)  # a copy would wait for the device

    def over_ranks(self, totals: Mapping[str, Tensor | float]) -> dict[str, float]:
        """The sums over all replicas, by name: one exchange, and one wait for the device."""
        return dict(zip(totals, self.stacked_sums(totals).tolist(), strict=True))

    def any_rank(self, requests: Sequence[bool]) -> list[bool]:
        """Whether at least one rank raises each request; the same answer on every rank."""
        sums = self.over_ranks({str(number): float(raised) for number, raised in enumerate(requests)})
        return [value > 0 for value in sums.values()]
