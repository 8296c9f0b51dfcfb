"""A soak: tiny quickstarts and sweeps under faults that a seed chooses; all of them end with the calm run's bytes."""
