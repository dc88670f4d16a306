"""Tenant: its policy and quota in each of its namespaces, the keyring of the gateways, and its status."""
