"""Plots, model cards, and one HTML page for each run."""
