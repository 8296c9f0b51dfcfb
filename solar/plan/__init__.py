"""In what order, under what name, at what cost: everything that is decided before work starts, without torch."""
