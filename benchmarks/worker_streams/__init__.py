"""How much of a CPU the worker's server takes per streamed token, and whether it ever holds its engine up."""
