"""How reconcilers are run: keys, the queue, workers, leadership, metrics and health. Decides nothing about services."""
