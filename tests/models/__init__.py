"""Tests of solar.models."""
