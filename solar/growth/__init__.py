"""The heart: which layer goes where, and how its bytes get there."""
