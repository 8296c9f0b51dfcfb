"""Beside the tests lies a program that another Python runs."""

collect_ignore = ["trl_trains.py"]
