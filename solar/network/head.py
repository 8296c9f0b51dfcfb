"""The output layer, which turns hidden states into logits; losses compute it a chunk of positions at a time.

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
"""Families that multiply by the factor that others divide by."""
SOFTCAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
"""Keys for a soft bound c on logits: c tanh(logit / c)."""

_PROBED = 4
_ALLOWED = {torch.float32: 1e-5}
_ALLOWED_ROUNDED = 3e-2
"""Largest difference of logits, relative to the largest logit, that the order of additions and roundings explains."""


@dataclass(frozen=True)
class Head:
    """Logits are `scale * (hidden_ND @ weight_VD.T + bias_V)`, under the soft bound `softcap` if there is one."""

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
        """Logits of a few positions, [N, V] in float32."""
        hidden_ND, bias_V = self._scaled(hidden_ND)
        logits_NV = torch.nn.functional.linear(hidden_ND, self.weight_VD, bias_V).float()
        return logits_NV if self.softcap is None else cap(logits_NV, self.softcap)

    def _scaled(self, hidden_ND: Tensor) -> tuple[Tensor, Tensor | None]:
        """Hidden states and bias times `scale`: hidden states are narrower than logits."""
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
    """The part of a network that computes hidden states. Raises `StageError` for a network without such a part."""
    for body in (network.get_decoder(), network.base_model, getattr(network, "model", None)):
        if isinstance(body, PreTrainedModel) and body is not network:
            return body
    raise StageError(f"model type {network.config.model_type} has no body apart from its head")


class _HiddenStates(BaseModelOutput):  # type: ignore[misc]
    """A body's output: hidden states, and None for every other field that a family reads."""

    def __getattr__(self, name: str) -> None:
        return None


@torch.no_grad()
def check_head(network: PreTrainedModel, model_dir: Path) -> None:
    """Raises `StageError` if the model's own code computes other logits from the same hidden states.

    The model's code is run on a few random hidden states in place of its layers' output.
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
    own_TV = head.logits(hidden_TD)
    allowed = _ALLOWED.get(network.dtype, _ALLOWED_ROUNDED) * float(logits_TV.abs().max())
    if own_TV.shape != logits_TV.shape or float((own_TV - logits_TV).abs().max()) > allowed:
        raise _unknown(network, model_dir)


def check_weights_of_head(network: PreTrainedModel, model_dir: Path) -> None:
    """For networks on the meta device. Raises `StageError` if a weight stands between body and output layer."""
    known = {*body_of(network).parameters(), *network.get_output_embeddings().parameters()}
    if any(parameter not in known for parameter in network.parameters()):
        raise _unknown(network, model_dir)


def _unknown(network: PreTrainedModel, model_dir: Path) -> StageError:
    return StageError(
        f"{model_dir}: model type {network.config.model_type} computes its logits in a way that solar does not know "
        "(more than a matrix, a bias, a factor and a soft cap), so its loss would be wrong; grow it here, then train "
        "and evaluate it with its own code"
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
    softcaps = [value for key in SOFTCAPS if (value := getattr(config, key, None))]
    return float(softcaps[0]) if softcaps else None


def _local(tensor: Tensor) -> Tensor:
    local: Tensor = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return local
