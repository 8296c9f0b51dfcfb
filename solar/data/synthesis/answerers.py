"""What answers prompts: a protocol, and a model on this machine that follows the protocol."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from solar.data.encode.encode import Encoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn."""

    temperature: float
    """0: always the likeliest token."""
    max_new_tokens: int


class Answerer(Protocol):
    """A model that answers prompts."""

    group: int
    """Seeds that are answered together: always the same groups, so that a restart changes no answer."""
    ahead: int
    """Groups that may be under way at once."""

    async def answer(self, prompts: Sequence[str], seed: int) -> list[str]:
        """An answer to each prompt, without the prompt. The same seed draws the same answers, if the model allows."""


class LocalAnswerer:
    """A model on this machine."""

    group, ahead = 8, 1

    def __init__(self, network: "PreTrainedModel", encoder: Encoder, sampling: Sampling) -> None:
        """`network`: in evaluation mode; its attention must take masks, because prompts are padded on the left."""
        self._network = network
        self._encoder = encoder
        self._sampling = sampling

    async def answer(self, prompts: Sequence[str], seed: int) -> list[str]:
        """Answers to all prompts, from one padded batch."""
        import torch

        rows = [self._ids(prompt) for prompt in prompts]
        width = max(map(len, rows))
        pad_id = self._encoder.eos_id
        device = self._network.device
        ids_BT = torch.tensor([[pad_id] * (width - len(row)) + row for row in rows], device=device)
        mask_BT = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
        torch.manual_seed(seed)
        sampled = {"do_sample": True, "temperature": self._sampling.temperature} if self._sampling.temperature else {}
        with torch.inference_mode():
            written_BT = self._network.generate(
                ids_BT,
                attention_mask=mask_BT,
                max_new_tokens=self._sampling.max_new_tokens,
                eos_token_id=self._encoder.end_of_turn_ids() if self._has_template else [self._encoder.eos_id],
                pad_token_id=pad_id,
                **({"do_sample": False} | sampled),
            )
        texts: list[str] = self._encoder.tokenizer.batch_decode(written_BT[:, width:], skip_special_tokens=True)
        return [text.strip() for text in texts]

    @property
    def _has_template(self) -> bool:
        return self._encoder.tokenizer.chat_template is not None

    def _ids(self, prompt: str) -> list[int]:
        """A user's message; for a model without a chat template, the beginning of a text."""
        if self._has_template:
            return self._encoder.prompt([{"role": "user", "content": prompt}])
        return self._encoder.documents([prompt])[0][:-1]
