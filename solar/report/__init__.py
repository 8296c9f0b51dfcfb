"""Look at it: plots and one HTML page a run."""
