"""Scores of how unusual a value is, and the detector that combines them. Never acts on what it finds."""
