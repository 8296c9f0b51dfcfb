"""From rows to the micro-batches of an optimizer step."""
