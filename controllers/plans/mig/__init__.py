"""MIG: which slices a GPU can be cut into, and which it should be. Pure: no client, no clock, no network."""
