"""Tests of solar.evaluation."""
