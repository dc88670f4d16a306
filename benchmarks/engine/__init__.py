"""The engine on a GPU, in its own process: throughput, latency, cold start, determinism, beside its peers."""
