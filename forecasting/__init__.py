"""Pure numerics: what the load was, what it will be, what is unusual about it, and what capacity it needs.

No clock, no network, no Kubernetes, no files: values in, values out.
"""
