"""The API of Foretide: a pydantic type per kind, the conditions, and the contract of operator, worker and gateway.

Never imports another package of ours, and never talks to a cluster: every other room reads this one.
"""
