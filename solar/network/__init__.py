"""A decoder as solar runs it: loaded by one door, documents kept apart, head and losses in chunks."""
