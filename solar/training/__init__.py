"""Lightning lives here and only here: losses, optimizers, modules, fit."""
