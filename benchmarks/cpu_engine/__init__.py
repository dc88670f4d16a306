"""How fast the worker's CPU path is beside `transformers` on the same checkpoint, threads and token counts."""
