"""Text to token ids: the only place that calls a tokenizer or a chat template."""
