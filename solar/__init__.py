"""solar: grow language models in depth, from a base to an aligned, merged, evaluated model."""

__version__ = "0.1.0"
