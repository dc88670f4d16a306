"""SLA: says what its numbers mean and whether they can stand together. Writes its status and nothing else."""
