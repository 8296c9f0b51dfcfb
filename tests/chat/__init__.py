"""Tests of solar.chat."""
