"""Which revision, then which worker, and why. Pure: every policy is a function from candidates to a choice."""
