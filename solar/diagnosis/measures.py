"""Sums over batches; their means are the numbers of a diagnosis.

Shapes: B sequences, T tokens, H hidden size, V vocabulary.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from solar.diagnosis.seams import loudness
from solar.diagnosis.virtual import Pass
from solar.growth.plans import LayerPlan


@dataclass
class SeamMeasure:
    """A boundary between two layers of a candidate that are no neighbours in the base."""

    position: int
    below: int
    above: int
    cosine: float
    """Between the input of the layer above in the candidate and in the base, mean over tokens."""
    rms_ratio: float
    """Root mean square of that input over the base's, median over tokens, after `seam: rms_match` has scaled it."""


@dataclass
class PlanMeasure:
    """Measures of a candidate on the same tokens as the base."""

    name: str
    layers: int
    parameters_ratio: float
    """Parameters of decoder layers, relative to the base's."""
    step0_loss: float
    """Nats a token, before any training."""
    step0_gap: float
    """`step0_loss` minus the base's loss."""
    kl: float
    """KL(base || grown) of the next-token distributions, nats, mean over tokens."""
    top1_agreement: float
    """Share of tokens for which both models find the same next token likeliest."""
    repeated_influence: float
    """Mean block influence of the repeated layers."""
    seam_cosine: float
    """That of the worst seam."""
    seam_rms_ratio: float
    """That of the worst seam."""
    description: str
    seams: list[SeamMeasure] = field(default_factory=list)
    residual_rms: list[float] = field(default_factory=list)
    """Root mean square of the residual stream before each layer and after the last."""
    sources: list[int] = field(default_factory=list)


class BaseSums:
    """Sums of the base's measures over batches."""

    def __init__(self) -> None:
        self.tokens = 0
        self._predicted = self._rows = 0
        self._loss = 0.0
        self._influence = self._angles = self._square = torch.zeros(0)

    def add(self, run: Pass, batch_BT: Tensor) -> None:
        stream = [hidden_BTH.float() for hidden_BTH in run.stream]
        cosine = torch.stack([_cosine(a, b).sum() for a, b in pairwise(stream)])
        last = torch.stack([hidden_BTH[:, -1] for hidden_BTH in stream])
        turned = torch.nn.functional.normalize(last, dim=-1)
        angles = (turned.transpose(0, 1) @ turned.permute(1, 2, 0)).clamp(-1, 1)
        angles = torch.arccos(angles).sum(0) / math.pi
        square = torch.stack([hidden_BTH.square().mean(-1).sum() for hidden_BTH in stream])
        empty = self.tokens == 0
        self._influence = cosine if empty else self._influence + cosine
        self._angles = angles if empty else self._angles + angles
        self._square = square if empty else self._square + square
        self._loss += float(_losses(run.logits_BTV, batch_BT).sum())
        self.tokens += batch_BT.numel()
        self._predicted += batch_BT[:, 1:].numel()
        self._rows += batch_BT.shape[0]

    def loss(self) -> float:
        return self._loss / self._predicted

    def influence(self) -> list[float]:
        """Block influence of each layer: 1 - mean over tokens of cos(input, output) (arXiv 2403.03853, equation 1)."""
        return [1 - value / self.tokens for value in self._influence.tolist()]

    def angular_distance(self) -> list[list[float]]:
        """Row k - 1, column l: arccos(cos(h_l, h_(l+k))) / pi on the last token (arXiv 2403.17887, equation 4)."""
        mean = (self._angles / self._rows).tolist()
        count = len(mean)
        return [[mean[layer][layer + k] for layer in range(count - k)] for k in range(1, count)]

    def residual_rms(self) -> list[float]:
        return [math.sqrt(value / self.tokens) for value in self._square.tolist()]


class PlanSums:
    """Sums of a candidate's measures over batches."""

    def __init__(self, layers: LayerPlan, scales: Mapping[int, float]) -> None:
        self.layers, self._scales = layers, scales
        self._tokens = self._predicted = 0
        self._loss = self._kl = self._agreement = 0.0
        self._cosine = [0.0] * len(layers.seams)
        self._ratio = [0.0] * len(layers.seams)
        self._square = [0.0] * (layers.num_hidden_layers + 1)

    def add(self, grown: Pass, base: Pass, batch_BT: Tensor) -> None:
        tokens = batch_BT.numel()
        base_logp_BTV, logp_BTV = base.logits_BTV.float().log_softmax(-1), grown.logits_BTV.float().log_softmax(-1)
        self._loss += float(_losses(grown.logits_BTV, batch_BT).sum())
        self._kl += float((base_logp_BTV.exp() * (base_logp_BTV - logp_BTV)).sum())
        self._agreement += float((base_logp_BTV.argmax(-1) == logp_BTV.argmax(-1)).sum())
        for i, seam in enumerate(self.layers.seams):
            usual_BTH = base.stream[seam.above]
            self._cosine[i] += float(_cosine(grown.stream[seam.position], usual_BTH).sum())
            louder = loudness(grown.stream[seam.position], usual_BTH)
            self._ratio[i] += louder / self._scales.get(seam.position, 1.0) * tokens
        for i, hidden_BTH in enumerate(grown.stream):
            self._square[i] += float(hidden_BTH.float().square().mean(-1).sum())
        self._tokens += tokens
        self._predicted += batch_BT[:, 1:].numel()

    def measure(self, name: str, base_loss: float, influence: list[float]) -> PlanMeasure:
        layers, loss = self.layers, self._loss / self._predicted
        seams = [
            SeamMeasure(seam.position, seam.below, seam.above, cosine / self._tokens, ratio / self._tokens)
            for seam, cosine, ratio in zip(layers.seams, self._cosine, self._ratio, strict=True)
        ]
        repeated = [influence[layers.sources[k]] for k in layers.new_positions]
        return PlanMeasure(
            name=name,
            layers=layers.num_hidden_layers,
            parameters_ratio=layers.num_hidden_layers / layers.base_layers,
            step0_loss=loss,
            step0_gap=loss - base_loss,
            kl=self._kl / self._tokens,
            top1_agreement=self._agreement / self._tokens,
            repeated_influence=sum(repeated) / len(repeated) if repeated else 0.0,
            seam_cosine=min((seam.cosine for seam in seams), default=1.0),
            seam_rms_ratio=max((seam.rms_ratio for seam in seams), key=lambda r: abs(math.log(r)), default=1.0),
            description=str(layers),
            seams=seams,
            residual_rms=[math.sqrt(value / self._tokens) for value in self._square],
            sources=list(layers.sources),
        )


def _cosine(a_BTH: Tensor, b_BTH: Tensor) -> Tensor:
    return torch.nn.functional.cosine_similarity(a_BTH.float(), b_BTH.float(), dim=-1)


def _losses(logits_BTV: Tensor, batch_BT: Tensor) -> Tensor:
    """Nats of each predicted token."""
    flat = logits_BTV[:, :-1].float().flatten(0, 1)
    return torch.nn.functional.cross_entropy(flat, batch_BT[:, 1:].flatten(), reduction="none")


def mean_loss(logits_BTV: Tensor, batch_BT: Tensor) -> float:
    """Nats a predicted token."""
    return float(_losses(logits_BTV, batch_BT).mean())
