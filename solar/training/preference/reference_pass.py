"""The reference pass: log-probabilities of every pair of a data set under a frozen model, on one or more devices."""

from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from transformers import PreTrainedModel

from solar.config.preference import ReferenceLogpsConfig
from solar.config.root import TrainerConfig
from solar.config.training import FrozenBase, Precision
from solar.data.store.dataset import TokenDataset
from solar.errors import DataError, Interrupted
from solar.network.cross_entropy import segment_sums
from solar.network.decoder import Decoder
from solar.network.head import Head, read_head
from solar.network.loading import load_network
from solar.network.microbatch import MicroBatch
from solar.network.quantised.base import quantise
from solar.training.interrupt import StopRequest, listening
from solar.training.memory import own_device
from solar.training.preference.reference import AnswerLogps, Key, ReferenceLogps, compute_table, content_hash

NAME = "logps.safetensors"


def key_of(model_dir: Path, data_dir: Path, precision: Precision, base: FrozenBase | None = None) -> Key:
    """What the values depend on; the data's tokens include template and lengths.

    Not the manifests: they hold times, and an artifact that was damaged and made again has the same content.
    """
    model = content_hash(model_dir, ("config.json", "*.safetensors"))
    data = content_hash(data_dir, ("tokens.json", "*.bin"))
    formats = precision.value if base is None else f"{precision} with a base in {base}"
    return Key(model=model, data=data, precision=formats)


def load_reference(
    model_dir: Path, precision: Precision, base: FrozenBase | None, device: torch.device
) -> PreTrainedModel:
    """The frozen model on `device`, rounded as the base of the training that is held to its log-probabilities."""
    network = load_network(model_dir, precision)
    if base is not None:
        quantise(network, base, precision, device)
    return network.to(device).eval()


def reference_pass(
    config: ReferenceLogpsConfig, model_dir: Path, data_dir: Path, output: Path, trainer: TrainerConfig, size: int
) -> int:
    """Write `logps.safetensors`, and return the number of pairs. Each device holds the whole model, in eval mode.

    Raises `Interrupted` after a signal; no values are kept.
    """
    if trainer.threads is not None:
        torch.set_num_threads(trainer.threads)
    rank, world_size = 0, trainer.devices * trainer.num_nodes
    with listening() as stop:
        if world_size > 1:
            dist.init_process_group("gloo")
            rank = dist.get_rank()
        logps = _answer_logps(config, model_dir, trainer, stop)
        try:
            tables = [_table(logps, data_dir, split, size, rank, world_size) for split in ("train", "valid")]
        finally:
            if world_size > 1:
                dist.destroy_process_group()
        if rank == 0:
            ReferenceLogps(*tables).save(output / NAME, key_of(model_dir, data_dir, config.precision, config.base))
    return sum(map(len, tables))


def _answer_logps(
    config: ReferenceLogpsConfig, model_dir: Path, trainer: TrainerConfig, stop: StopRequest
) -> AnswerLogps:
    """The frozen model on this process's device, as a function of a micro-batch."""
    device = own_device(trainer.device_type)
    network = load_reference(model_dir, config.precision, config.base, device)
    decoder = Decoder(network)

    def logps(batch: MicroBatch) -> Tensor:
        if stop.received:
            raise Interrupted(f"stopped by {stop.received.name}; the same command starts the reference pass anew")
        moved = batch.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision is Precision.bf16_mixed):
            hidden_TD = decoder(moved.input_ids_T, moved.position_ids_T, moved.segments)[0]
            return answer_sums(hidden_TD[moved.positions_N], read_head(network), moved)

    return logps


def answer_sums(hidden_ND: Tensor, head: Head, batch: MicroBatch) -> Tensor:
    """Log-probabilities of all tokens of each answer, [P, 2]: chosen, rejected."""
    logps_N = head.logps(hidden_ND, batch.targets_N)
    pairs = batch.answers // 2
    return segment_sums(logps_N, batch.answers_N, 2 * pairs).view(pairs, 2)


def _table(logps: AnswerLogps, data_dir: Path, split: str, size: int, rank: int, world_size: int) -> Tensor:
    rows = TokenDataset(data_dir, "train")
    if rows.header.task != "preference":
        raise DataError(f"{data_dir}: holds {rows.header.task} data, expected preference pairs")
    if split not in rows.header.splits:
        return torch.zeros(0, 2)
    table = compute_table(logps, TokenDataset(data_dir, split), size, rank, world_size)
    if world_size > 1:
        dist.all_reduce(table)
    return table
