"""The chat template on disk, and where it ends an answer."""
