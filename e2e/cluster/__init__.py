"""A real Kubernetes on one machine, built from package registries alone.

It exists because an operator that no kubelet ever watched is not tested, and because a build machine often has neither
a cluster nor a container engine. It patches nothing in Kubernetes, and it never touches the host's firewall.
"""
