"""Streams that outlive their workers: what is kept of each while it is open, and how it goes on elsewhere."""
