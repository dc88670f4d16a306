"""The gateway's choices for another proxy: Envoy asks by its external processing protocol where a request goes."""
