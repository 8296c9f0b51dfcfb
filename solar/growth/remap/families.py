"""Families of models by what is known of them; nothing is built on this but what is asked and what is checked."""

_PLAIN = """
apertus arcee biogpt bloom codegen cohere ernie4_5 falcon gemma glm glm4 gpt2 gpt_bigcode gpt_neo gpt_neox gptj
granite granitemoe helium llama mistral mixtral mpt nemotron olmo olmo2 olmoe opt persimmon phi phi3 seed_oss
stablelm starcoder2 xglm
"""
_WITH_LAYERS_OF_KINDS = """
afmoe bamba cohere2 cwm deepseek_v2 deepseek_v3 dots1 ernie4_5_moe exaone4 exaone_moe falcon_h1 flex_olmo gemma2
gemma3_text gemma4_text glm4_moe gpt_oss granitemoehybrid hunyuan_v1_dense jamba jetmoe lfm2 lfm2_moe
llama4_text mamba mamba2 minicpm3 ministral nemotron_h olmo3 phimoe qwen2 qwen2_moe qwen3 qwen3_5_text qwen3_moe
qwen3_next recurrent_gemma rwkv smollm3 vaultgemma
"""

DERIVE_NOTHING = frozenset(_PLAIN.split())
"""Their configuration holds for all layers alike, or says all it says of single ones in config.json: `transformers`
need not be asked what it derives, so that growing them starts no second process."""

PROVEN = DERIVE_NOTHING | frozenset(_WITH_LAYERS_OF_KINDS.split())
"""Families of which our tests have grown a model and compared its logits; others are verified by logits while small."""
