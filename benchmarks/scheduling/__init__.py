"""The engine's scheduler on a virtual clock: policies and batching modes against vLLM's and published ones."""
