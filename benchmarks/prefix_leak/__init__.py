"""Whether one tenant can tell by timing what another one asked: probes, half of them warmed by the other."""
