"""Measurements of models that are run: candidate plans are ranked, seams matched, grown models compared."""
