"""solar: grow language models in depth, from a base to an aligned, merged, evaluated model."""

import logging

__version__ = "0.1.0"

# transformers imports torchao wherever it is installed, which then speaks of its own kernels on every start.
for _name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)
