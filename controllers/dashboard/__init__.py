"""What the dashboard's page asks for: a read-only JSON API over the caches and the history, served by the leader."""
