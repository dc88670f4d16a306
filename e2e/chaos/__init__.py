"""A campaign of injected faults on the real cluster, and what became of each: found, moved, healed, at what price."""
