"""The output layer: what a model makes of its hidden states, computed with the loss, a chunk of positions at a time.

Shapes: N positions, D hidden size, V vocabulary.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from solar.errors import StageError
from solar.network.cross_entropy import cap, cross_entropy_sum, token_logps

MULTIPLIED_BY = ("logit_scale", "lm_head_multiplier")
DIVIDED_BY = ("logits_scaling", "logits_mup_width_multiplier")
"""Keys of a model's config for a factor on its logits."""
DIVISOR_THAT_MULTIPLIES = ("hyperclovax",)
"""Families that multiply by what the others divide by."""
SOFTCAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
"""Keys for a bound c that logits are bent under: c tanh(logit / c)."""

_PROBED = 4
_ALLOWED = {torch.float32: 1e-5}
_ALLOWED_ROUNDED = 3e-2
"""Difference of logits, relative to the largest, that the order of additions and roundings may explain."""


@dataclass(frozen=True)
class Head:
    """Logits are `scale * (hidden_ND @ weight_VD.T + bias_V)`, bent under `softcap` where there is one."""

    weight_VD: Tensor
    bias_V: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None

    def loss_sum(self, hidden_ND: Tensor, targets_N: Tensor, z_loss: float = 0.0) -> tuple[Tensor, Tensor]:
        """Sum of the next-token loss in nats, and of the z-loss that is part of it."""
        hidden_ND, bias_V = self._scaled(hidden_ND)
        return cross_entropy_sum(
            hidden_ND, self.weight_VD, targets_N, bias_V=bias_V, softcap=self.softcap, z_loss=z_loss
        )

    def logps(self, hidden_ND: Tensor, targets_N: Tensor) -> Tensor:
        """Log-probability of each target, [N] in float32."""
        hidden_ND, bias_V = self._scaled(hidden_ND)
        return token_logps(hidden_ND, self.weight_VD, targets_N, bias_V=bias_V, softcap=self.softcap)

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """All of them, in float32: for a few positions."""
        hidden_ND, bias_V = self._scaled(hidden_ND)
        logits_NV = torch.nn.functional.linear(hidden_ND, self.weight_VD, bias_V).float()
        return logits_NV if self.softcap is None else cap(logits_NV, self.softcap)

    def _scaled(self, hidden_ND: Tensor) -> tuple[Tensor, Tensor | None]:
        """The factor is put on the narrow side of the product."""
        if self.scale == 1:
            return hidden_ND, self.bias_V
        return hidden_ND * self.scale, None if self.bias_V is None else self.bias_V * self.scale


def read_head(network: PreTrainedModel) -> Head:
    """Raises `StageError` for a model without an output layer."""
    layer = network.get_output_embeddings()
    if layer is None:
        raise StageError(f"{type(network).__name__}: no output layer found, expected a language model with one")
    bias = getattr(layer, "bias", None)
    config = network.config.get_text_config(decoder=True)
    return Head(_local(layer.weight), None if bias is None else _local(bias), _scale(config), _softcap(config))


def body_of(network: PreTrainedModel) -> PreTrainedModel:
    """What makes the hidden states that the head reads. Raises `StageError` for a network that is not made so."""
    for found in (network.get_decoder(), network.base_model, getattr(network, "model", None)):
        if isinstance(found, PreTrainedModel) and found is not network:
            return found
    raise StageError(f"model type {network.config.model_type} has no body apart from its head to be trained")


class _HiddenStates(BaseModelOutput):  # type: ignore[misc]
    """What a body returns: hidden states, and None for caches and whatever else its family adds."""

    def __getattr__(self, name: str) -> None:
        return None


@torch.no_grad()
def check_head(network: PreTrainedModel, model_dir: Path) -> None:
    """Raises `StageError` where the model's own code makes other logits of the same hidden states.

    Nothing but a probe can tell: the code runs on a few hidden states drawn at random, its layers left out.
    """
    head, body = read_head(network), body_of(network)
    noise = torch.Generator().manual_seed(0)
    hidden_TD = torch.randn(_PROBED, head.weight_VD.shape[1], generator=noise).to(head.weight_VD)
    body.forward = lambda *args, **kwargs: _HiddenStates(last_hidden_state=hidden_TD[None])
    try:
        ids_BT = torch.zeros(1, _PROBED, dtype=torch.long, device=hidden_TD.device)
        logits_TV = network(input_ids=ids_BT, use_cache=False).logits[0].float()
    finally:
        del body.forward
    found_TV = head.logits(hidden_TD)
    allowed = _ALLOWED.get(network.dtype, _ALLOWED_ROUNDED) * float(logits_TV.abs().max())
    if found_TV.shape != logits_TV.shape or float((found_TV - logits_TV).abs().max()) > allowed:
        raise _unknown(network, model_dir)


def check_weights_of_head(network: PreTrainedModel, model_dir: Path) -> None:
    """What can be said of a network that has no numbers yet: no weight stands between its body and its output layer.

    Raises `StageError` if one does.
    """
    known = {*body_of(network).parameters(), *network.get_output_embeddings().parameters()}
    if any(parameter not in known for parameter in network.parameters()):
        raise _unknown(network, model_dir)


def _unknown(network: PreTrainedModel, model_dir: Path) -> StageError:
    return StageError(
        f"{model_dir}: model type {network.config.model_type} makes its logits in a way that training does not know "
        "(more than a matrix, a bias, a factor and a soft cap), so its loss would be another; grow it here and train "
        "it with its own code"
    )


def _scale(config: Any) -> float:
    scale = 1.0
    for key in MULTIPLIED_BY:
        scale *= _number(config, key)
    for key in DIVIDED_BY:
        value = _number(config, key)
        scale = scale * value if config.model_type in DIVISOR_THAT_MULTIPLIES else scale / value
    return scale


def _number(config: Any, key: str) -> float:
    value = getattr(config, key, None)
    return 1.0 if value is None else float(value)


def _softcap(config: Any) -> float | None:
    found = [value for key in SOFTCAPS if (value := getattr(config, key, None))]
    return float(found[0]) if found else None


def _local(tensor: Tensor) -> Tensor:
    local: Tensor = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return local
