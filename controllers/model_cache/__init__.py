"""The node agent: keeps verified copies of Models on this node's disk, one process per node.

Reads Models, its own node and the pods on it; writes files under its root and its own item of `Model.status.nodes`.
Never talks to the operator, and needs neither leadership nor kopf.
"""
