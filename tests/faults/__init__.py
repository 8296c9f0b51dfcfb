"""Faults that tests inject: damaged files, hostile model folders, and a place to run commands against them."""
