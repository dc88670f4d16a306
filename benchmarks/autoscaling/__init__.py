"""Every autoscaler over the same replayed traces: how many GPU-hours for which share of good requests."""
