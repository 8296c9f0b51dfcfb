"""Preference optimization: of two answers to a prompt, the chosen one becomes more likely than under the reference."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from solar.config.preference import REFERENCE_FREE, DpoConfig
from solar.network.cross_entropy import segment_sums
from solar.network.head import read_head
from solar.network.microbatch import MicroBatch, from_pairs
from solar.training.batches.steps import Step, StepDataset
from solar.training.batches.validation_rows import ValidationRows
from solar.training.modules.step import TrainingModule
from solar.training.optim.optimizers import Roles
from solar.training.optim.schedule import Schedule
from solar.training.preference.losses import AnswerLogps, preference_loss
from solar.training.preference.metrics import health
from solar.training.preference.reference import Key, ReferenceLogps, compute_reference
from solar.training.preference.reference_pass import NAME, answer_sums, key_of, load_reference


class PreferenceOptimization(TrainingModule):
    """The policy trains alone in memory; the reference's log-probabilities are known before the first step."""

    assemble = staticmethod(from_pairs)

    def __init__(
        self,
        network: PreTrainedModel,
        config: DpoConfig,
        schedule: Schedule,
        role_of: Roles,
        *,
        model_dir: Path,
        reference_dir: Path,
        data_dir: Path,
        logps_dir: Path | None = None,
    ) -> None:
        """`logps_dir`: output of the reference pass. Without it, `prepare` computes the log-probabilities."""
        super().__init__(network, config, schedule, role_of)
        self.preference = config
        self.model_dir, self.reference_dir, self.data_dir = model_dir, reference_dir, data_dir
        self.logps_dir = logps_dir
        self.reference: ReferenceLogps | None = None
        self.reference_point = 0.0
        """Mean log-ratio of policy and reference in the previous step, at least 0: an estimate of their KL
        divergence."""

    def training_step(self, step: Step, batch_idx: int) -> None:
        super().training_step(step, batch_idx)
        if "chosen_reward" in self.record:
            rewards = self.record["chosen_reward"] + self.record["rejected_reward"]
            self.reference_point = max(0.0, rewards / (2 * self.preference.beta))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["solar"]["reference_point"] = self.reference_point

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.reference_point = checkpoint["solar"]["reference_point"]

    def loss_sum(self, batch: MicroBatch) -> tuple[Tensor, dict[str, Tensor]]:
        policy_P2 = self.answer_logps(batch)
        reference_P2 = self._reference_logps(batch)
        tokens_P2 = segment_sums(torch.ones_like(batch.answers_N), batch.answers_N, policy_P2.numel()).view(-1, 2)
        logps = AnswerLogps(*policy_P2.unbind(1), *reference_P2.unbind(1), *tokens_P2.unbind(1))
        loss_P = preference_loss(logps, self.preference, self.reference_point)
        return loss_P.sum(), health(logps, self.preference)

    def answer_logps(self, batch: MicroBatch, network: PreTrainedModel | None = None) -> Tensor:
        """Log-probabilities of all tokens of each answer, [P, 2]: chosen, rejected."""
        hidden_ND = self.hidden(batch, network)
        return answer_sums(hidden_ND, read_head(network or self.network), batch)

    def _reference_logps(self, batch: MicroBatch) -> Tensor:
        assert self.reference is not None, "prepare comes before the first step"
        table = self.reference.train if self.network.training else self.reference.valid
        rows_P2 = table[torch.tensor(batch.sample_ids, dtype=torch.long)]
        if self.device.type == "cuda":
            rows_P2 = rows_P2.pin_memory()  # a copy from other memory would wait for the device
        return rows_P2.to(self.device, non_blocking=True)

    def divisor(self, step: Step) -> int:
        return step.rows

    def validation_divisor(self, batch: MicroBatch) -> int:
        return batch.answers // 2

    def prepare(self, steps: StepDataset, held_out: ValidationRows, output: Path) -> None:
        """Load the reference's log-probabilities, or compute and save them in `output`."""
        if self.preference.loss in REFERENCE_FREE:
            self.reference = ReferenceLogps(torch.zeros(len(steps.rows), 2), torch.zeros(len(held_out.rows), 2))
            return
        path = output / "reference.safetensors"
        key = replace(self._key(), rows=steps.budget.rows, seed=self.config.seed)
        # All ranks take the same way, or some would wait for the others' sums: a shared disk may show a file late.
        (missing,) = self.any_rank([not path.exists()])
        if not missing:
            self.reference = ReferenceLogps.load(path, key)
            return
        self.reference = (
            self._computed(steps, held_out) if self.logps_dir is None else self._loaded(self.logps_dir, steps, held_out)
        )
        if self.trainer.is_global_zero:
            self.reference.save(path, key)
        self.trainer.strategy.barrier()

    def _key(self) -> Key:
        return key_of(self.reference_dir, self.data_dir, self.config.precision, self.config.adapter.base)

    @property
    def _is_policy(self) -> bool:
        """Whether the policy still equals the reference."""
        return self.reference_dir.resolve() == self.model_dir.resolve() and self.steps_done == 0

    def _computed(self, steps: StepDataset, held_out: ValidationRows) -> ReferenceLogps:
        settings = self.config.precision, self.config.adapter.base
        network = None if self._is_policy else load_reference(self.reference_dir, *settings, self.device)
        return self._compute(network, steps, held_out)

    def _loaded(self, logps_dir: Path, steps: StepDataset, held_out: ValidationRows) -> ReferenceLogps:
        """The values of the reference pass.

        Where the policy equals the reference, the first step and the held-out pairs are recomputed in training's own
        micro-batches, so that their margins are exactly 0: a matrix product may round a row by its neighbours.
        """
        values = ReferenceLogps.load(logps_dir / NAME, self._key(), logps_dir)
        if self._is_policy:
            own = self._compute(None, steps, held_out, first_steps=1)
            values.train = torch.where(own.train != 0, own.train, values.train)
            values.valid[: len(own.valid)] = torch.where(own.valid != 0, own.valid, values.valid)
        return values

    def _compute(
        self,
        network: PreTrainedModel | None,
        steps: StepDataset,
        held_out: ValidationRows,
        first_steps: int | None = None,
    ) -> ReferenceLogps:
        """The log-probabilities under `network`, or under the policy as it is."""

        def logps(batch: MicroBatch) -> Tensor:
            with self.trainer.precision_plugin.forward_context():
                return self.answer_logps(batch.to(self.device), network)

        def over_ranks(values: Tensor) -> Tensor:
            return self.summed(values.to(self.device)).cpu()

        self.network.eval()
        values = compute_reference(logps, steps, held_out, over_ranks, first_steps)
        self.network.train()
        return values
