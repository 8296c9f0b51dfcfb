"""Rows that stay out: duplicates, near duplicates, text of the evaluation tasks; each drop counted with its reason."""
