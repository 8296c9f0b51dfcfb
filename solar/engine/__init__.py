"""Carry out a plan: run the missing stages and publish their artifacts."""
