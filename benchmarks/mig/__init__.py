"""The partition planner beside placement heuristics: how much demand is served, and how fast it is planned."""
