"""Optimizers, schedules, averages, the guard against bad steps."""
