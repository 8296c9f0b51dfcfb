"""Checkpoints without pickle, and the exported model."""
