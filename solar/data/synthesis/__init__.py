"""Rephrased mathematics from a language model behind a server, and the check of each answer."""
