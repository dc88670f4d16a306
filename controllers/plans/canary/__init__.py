"""Canary and blue-green rollouts: what is measured of two revisions, what follows from it, and the next step. Pure."""
