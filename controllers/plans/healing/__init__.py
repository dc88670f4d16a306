"""Self-healing of one service: symptoms → diagnoses → remedies, as pure functions of the snapshot.

Reading order: `values`, `symptoms`, `tree` (the knowledge, as data), `diagnose`, `plan` (what is done about it).
"""
