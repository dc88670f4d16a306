"""The agent on each GPU node: writes what the driver says of faults and geometry onto its Node. Decides nothing."""
