"""One model on several devices: shards, and layers that are computed together."""
