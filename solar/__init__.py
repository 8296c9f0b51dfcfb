"""solar: grow language models in depth, from a base to an aligned, merged, evaluated model."""

import sys
from pathlib import Path

from solar.redaction import redact_tracebacks

__version__ = "0.1.0"

if Path(sys.argv[0]).name in ("-m", "solar"):  # a command is starting: it reads its modules for seconds
    redact_tracebacks()
