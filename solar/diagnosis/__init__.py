"""Grown models measured by running them: candidates ranked, seams matched, results compared with the base."""
