"""What a pick costs, and what each policy does to latency and cached prefixes on a simulated fleet."""
