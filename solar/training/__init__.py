"""Lightning lives here and only here: losses, optimizers, modules, fit."""

from unittest.mock import patch

# Lightning imports torchmetrics, which imports matplotlib and parts of scipy where they are installed: one second, a
# fifth of the time to the first step, for plots and audio that training does not use. torchmetrics has no setting
# against it, so the two functions with which it looks for packages are patched during the import.
with (
    patch("lightning_utilities.core.imports.package_available", return_value=False),
    patch("lightning_utilities.core.imports.RequirementCache.__bool__", return_value=False),
):
    import torchmetrics  # noqa: F401
