"""Text to tokens: sources, formats, packing, order."""
