"""Rows from local files and from a hub, whatever their format."""
