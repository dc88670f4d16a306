"""Who may ask now, who waits, and who is refused: limits agreed among gateways, and a fair queue for each service."""
