"""Lightning lives here and only here: losses, optimizers, modules, fit."""

from unittest.mock import patch

# Lightning imports torchmetrics, which imports matplotlib and much of scipy where it finds them: a fifth of the time to
# the first step, for plots and sounds that nobody asks of it here. These two are how it looks for them.
with (
    patch("lightning_utilities.core.imports.package_available", return_value=False),
    patch("lightning_utilities.core.imports.RequirementCache.__bool__", return_value=False),
):
    import torchmetrics  # noqa: F401
