"""The engine: block pool, scheduler, runner, sampler, and the process they live in.

`scheduler`, `block_pool`, `messages` and `client` import no torch, so that the server process never loads it.
"""
