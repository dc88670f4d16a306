"""Triton kernels of the GPU path. Each file holds a launcher that validates, a kernel and a torch reference.

Only `triton_ops` and `precompile` know the model's vocabulary; the others import nothing of ours and can be read
alone. Nothing here searches for configurations or owns a buffer between calls: `tuning` reads them from a table,
callers bring the memory.
"""
