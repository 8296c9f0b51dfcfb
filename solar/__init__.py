"""solar: grow language models in depth, from a base to an aligned, merged, evaluated model."""

import logging
import sys
from pathlib import Path

from solar.redaction import redact_tracebacks

__version__ = "0.1.0"

# transformers imports torchao wherever it is installed, which then speaks of its own kernels on every start.
for _name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)
if Path(sys.argv[0]).name in ("-m", "solar"):  # a command is starting: it reads its modules for seconds
    redact_tracebacks()
