"""GPUPools: a process of its own with an account of its own, since it is the only one of ours that writes Nodes."""
