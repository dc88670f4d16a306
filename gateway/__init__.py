"""The data plane: from an API key and a model name to a worker's answer. Never writes to the cluster."""
