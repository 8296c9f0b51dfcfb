"""What a stage leaves behind: a folder, its manifest, and how it appears all at once."""
