"""The Llama that the benchmarks measure with, as names, shapes and a configuration: neither torch nor transformers."""

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Llama:
    """Sizes; a quarter as many key-value heads as heads of `head` dimensions, untied."""

    layers: int
    hidden: int
    intermediate: int
    vocabulary: int = 32000
    head: int = 64

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Tensor name -> shape."""
        h, inner = self.hidden, self.intermediate
        layer = {
            "self_attn.q_proj": (h, h),
            "self_attn.k_proj": (h // 4, h),
            "self_attn.v_proj": (h // 4, h),
            "self_attn.o_proj": (h, h),
            "mlp.gate_proj": (inner, h),
            "mlp.up_proj": (inner, h),
            "mlp.down_proj": (h, inner),
            "input_layernorm": (h,),
            "post_attention_layernorm": (h,),
        }
        layers = {f"model.layers.{i}.{name}.weight": shape for i in range(self.layers) for name, shape in layer.items()}
        table = (self.vocabulary, h)
        return {"model.embed_tokens.weight": table, **layers, "model.norm.weight": (h,), "lm_head.weight": table}

    def write_config(self, folder: Path, dtype: str) -> None:
        config = {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_attention_heads": self.hidden // self.head,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.hidden // self.head // 4,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": False,
            "dtype": dtype,
            "vocab_size": self.vocabulary,
        }
        (folder / "config.json").write_text(json.dumps(config))

    def write_trainable(self, folder: Path) -> None:
        """Weights in float32 as a model starts with: norms 1, the others normal with deviation 0.02."""
        import numpy as np  # here, because a process's memory counts toward the peak of each process that it starts
        from safetensors.numpy import save_file

        random = np.random.default_rng(0)
        folder.mkdir(parents=True)
        tensors = {
            name: np.ones(shape, np.float32)
            if len(shape) == 1
            else (0.02 * random.standard_normal(shape, dtype=np.float32))
            for name, shape in self.shapes().items()
        }
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        self.write_config(folder, "float32")
