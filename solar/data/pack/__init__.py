"""Documents to rows of a fixed length."""
