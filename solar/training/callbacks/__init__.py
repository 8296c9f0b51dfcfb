"""What watches a training: checkpoints, validation, logs, trackers, signals."""
