"""torch.compile of a decoder's layers."""

from transformers import PreTrainedModel

from solar.config.root import Strategy, TrainerConfig
from solar.network.balance import balance_weight
from solar.network.isolation import drops_attention, family_of
from solar.training.distributed.sharding import decoder_layers


def compile_layers(network: PreTrainedModel, trainer: TrainerConfig) -> None:
    """Compile each layer by itself, if the trainer asks for it, or leaves it open and it pays.

    Layers of one kind share the compiled code, so start-up does not grow with depth.
    """
    if trainer.compile or (trainer.compile is None and pays(network, trainer)):
        for layer in decoder_layers(network):
            layer.compile(dynamic=True)


def pays(network: PreTrainedModel, trainer: TrainerConfig) -> bool:
    """On CUDA, where one kernel computes the attention of a row: else layers are cut into small graphs, or called for
    each document. Not in deterministic mode, not under FSDP2, whose hooks cut layers, and not where routers' logits are
    collected from inside the layers."""
    whole = trainer.accelerator == "gpu" and trainer.strategy is not Strategy.fsdp and not trainer.deterministic
    family = family_of(network)
    one_kernel = (family.in_segments or family.in_flex) and not drops_attention(network)
    return whole and one_kernel and not balance_weight(network)
