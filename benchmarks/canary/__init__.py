"""How often a canary is judged wrongly: simulated rollouts of equal and of worse revisions, beside other judges."""
