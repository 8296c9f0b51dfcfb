"""A network read as hidden states and a head: the forward pass of training, scores, references and written text.

Shapes: T tokens of a row, N trained positions, D hidden size, V vocabulary.
"""

import inspect
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from solar.errors import StageError
from solar.network.attention import Segment
from solar.network.balance import Routed, balance_weight
from solar.network.head import Head, body_of, read_head
from solar.network.isolation import (
    compute_dtype,
    drops_attention,
    family_of,
    flex_holds,
    in_one_pass,
    layout_of,
    one_by_one,
    own_attention,
    runs_in_segments,
)
from solar.network.kernels.choice import Choice, Family, Way, choose
from solar.network.microbatch import MicroBatch

CACHES = ("past_key_values", "cache_params", "state")
"""What families call the memory of the tokens they have read, in their arguments and in their output."""


@dataclass(frozen=True)
class Memory:
    """What a network keeps of the first `tokens` tokens of a text; `name` is the argument that takes the cache."""

    name: str
    cache: Any
    tokens: int


class Decoder(nn.Module):
    """The module through whose forward a sharded network must be called."""

    def __init__(self, network: PreTrainedModel) -> None:
        super().__init__()
        self.network = network
        self.balance_weight = balance_weight(network)
        self.routed: list[Routed] = []
        """The routers' logits of the last pass, if a loss balances the experts."""
        self.choices: dict[str, int] = {}
        """How rows were computed, and why -> number of rows."""
        self._family: tuple[str, Family] | None = None
        self._flex_holds: bool | None = None
        """Whether FlexAttention gave the family's own hidden states; None: not tried."""

    def forward(self, input_ids_T: Tensor, position_ids_T: Tensor, segments: list[Segment]) -> Tensor:
        """The last hidden state of every token of one row of documents, [1, T, D]."""
        self.routed = []
        body = self._routing if self.balance_weight and self.network.training else body_of(self.network)
        choice = self._choose(segments)
        self.choices[str(choice)] = self.choices.get(str(choice), 0) + 1
        if choice.way is Way.alone:
            return one_by_one(body, input_ids_T, segments)
        return in_one_pass(
            body, input_ids_T, position_ids_T, layout_of(choice.way, segments, self.network, self.family)
        )

    def _choose(self, segments: list[Segment]) -> Choice:
        """The way for this row. The first row on a device tries FlexAttention, where the family needs it."""
        network = self.network
        shares_prompts = any(segment.prefix is not None for segment in segments)
        choice = choose(
            self.device.type,
            compute_dtype(network),
            self.family,
            shares_prompts=shares_prompts,
            dropout=drops_attention(network),
            deterministic=torch.are_deterministic_algorithms_enabled(),
        )
        if choice.way is not Way.flex or runs_in_segments(network):
            return choice
        if self._flex_holds is None:
            training = network.training
            self._flex_holds = flex_holds(network.eval())
            network.train(training)
        return choice if self._flex_holds else Choice(Way.alone, "FlexAttention gave other hidden states when tried")

    def trained_states(self, batch: MicroBatch) -> Tensor:
        """Hidden states of the positions whose next token is a target, [N, D]."""
        states_TD: Tensor = self(batch.input_ids_T, batch.position_ids_T, batch.segments)[0]
        return states_TD if batch.trained_tokens == len(states_TD) else states_TD[batch.positions_N]

    @torch.no_grad()
    def next_logits(self, ids: list[int], memory: Memory | None = None) -> tuple[Tensor, Memory | None]:
        """Logits of the token after `ids`, [V] in float32, and a memory of `ids` for the next call.

        `memory`: that of the first tokens of `ids`, which are then not read again; None where a family keeps none.
        """
        body = body_of(self.network)
        arguments = inspect.signature(body.forward).parameters
        name = next((name for name in CACHES if name in arguments), None)
        start = 0 if memory is None else memory.tokens
        inputs: dict[str, Any] = {"input_ids": torch.tensor([ids[start:]], device=self.device), "use_cache": True}
        if memory is not None:
            inputs[memory.name] = memory.cache
        if "position_ids" in arguments:  # some families count only what attention layers have cached
            inputs["position_ids"] = torch.arange(start, len(ids), device=self.device)[None]
        with own_attention(self.network) if self.family.features else nullcontext():
            output = body(**inputs)
        logits_V = self.head.logits(output.last_hidden_state[0, -1:])[0]
        cache = None if name is None else getattr(output, name, None)
        return logits_V, None if name is None or cache is None else Memory(name, cache, len(ids))

    def check_ids(self, ids: list[int]) -> None:
        """Raises `StageError` for a token that has no row in the embeddings."""
        if ids and max(ids) >= self.vocab_size:
            raise StageError(
                f"{self.network.name_or_path}: the tokenizer gives token {max(ids)}, but the model has embeddings for "
                f"0 to {self.vocab_size - 1}; use the tokenizer that the model was trained with"
            )

    @property
    def family(self) -> Family:
        """What decides how rows are computed; looked up anew when the network's attention was exchanged."""
        name = str(self.network.config._attn_implementation)
        if self._family is None or self._family[0] != name:
            self._family = name, family_of(self.network)
        return self._family[1]

    @property
    def head(self) -> Head:
        return read_head(self.network)

    @property
    def config(self) -> Any:
        """The configuration of the decoder itself, where others stand beside it."""
        return self.network.config.get_text_config(decoder=True)

    @property
    def device(self) -> torch.device:
        device: torch.device = self.network.device
        return device

    @property
    def vocab_size(self) -> int:
        """Rows of the embeddings."""
        return int(self.network.get_input_embeddings().weight.shape[0])

    @property
    def max_positions(self) -> int:
        """Tokens that the model was made for; many, where its configuration names no bound."""
        return getattr(self.config, "max_position_embeddings", None) or 2**31

    def _routing(self, **inputs: Any) -> Any:
        output = body_of(self.network)(**inputs, output_router_logits=True)
        self.routed.append(output.router_logits)
        return output
