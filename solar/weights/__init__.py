"""A model folder's files on disk, without torch."""
