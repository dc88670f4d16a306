"""HTTP/1.1 on uvloop protocols and httptools: a server, an upstream client, their limits.

Exists because an ASGI server and a general client cost more than the whole rest of the gateway. Knows nothing of
tenants, models or Kubernetes, and never decides where a request goes.
"""
