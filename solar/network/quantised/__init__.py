"""Weights in fewer bits than floats: whole folders turned into floats, and a frozen base while adapters are trained."""
