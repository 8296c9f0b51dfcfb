"""Tests of solar.network."""
