"""Decoders: the only place that loads and runs them, keeps documents apart, and computes losses in chunks."""
