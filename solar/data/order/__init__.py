"""Which row comes when: a pure function of (data, seed, position)."""
