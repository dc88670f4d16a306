"""Model: its volume and claim, and what its status says of the nodes' copies. Fetching is the node agents' work."""
