"""Whether a worker may have requests: from what they met there (passive), and from what it says of itself (active).

Judges one endpoint among its service's others, and says so with arithmetic. Never picks one: that is `gateway.routing`.
"""
