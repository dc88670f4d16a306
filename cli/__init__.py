"""The `foretide` command, also as `kubectl foretide`: what would happen, and why something did."""
