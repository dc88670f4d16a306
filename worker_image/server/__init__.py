"""HTTP: the OpenAI API on one port, health, metrics and drain on another. Imports no torch."""
