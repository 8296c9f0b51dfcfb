"""Token files on disk, memory-mapped."""
