"""Tests of solar.report."""
