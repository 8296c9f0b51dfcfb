"""Where weights come from: made at random, or brought in from a folder, a package or a hub."""
