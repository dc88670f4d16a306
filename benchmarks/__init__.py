"""Reproducible comparisons with peers, one folder per question. Results go to `docs/benchmarks/`, page and numbers."""
