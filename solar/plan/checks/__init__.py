"""What is wrong with a configuration, and can be known from the configuration alone."""
