"""End-to-end scenarios and the cluster they run on. Nothing of the product imports from here."""
