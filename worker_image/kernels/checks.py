"""What launchers say when they are handed something a kernel would misread. Shapes only: no device is touched."""

from __future__ import annotations

from collections.abc import Sequence

import torch

FLOATS = (torch.bfloat16, torch.float16, torch.float32)


class KernelError(ValueError):
    """A kernel was called with arguments it cannot serve; the message names the argument, what it is and what fits."""


def require(condition: bool, message: str) -> None:
    """Raises KernelError(message) unless the condition holds."""
    if not condition:
        raise KernelError(message)


def require_tensor(
    name: str,
    tensor: torch.Tensor,
    shape: Sequence[int | None],
    dtypes: Sequence[torch.dtype],
    *,
    contiguous: bool = True,
) -> None:
    """`shape` has None where any size fits; not `contiguous` asks for dense rows only (last stride 1)."""
    # Sentences are made only where they are needed: these checks run before every launch.
    if not _fits(tensor.shape, shape):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise KernelError(f"{name} has shape {tuple(tensor.shape)}; the kernel takes ({wanted})")
    if tensor.dtype not in dtypes:
        names = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise KernelError(f"{name} is {str(tensor.dtype).removeprefix('torch.')}; the kernel takes {names}")
    if not (tensor.is_contiguous() if contiguous else tensor.stride(-1) == 1):
        raise KernelError(f"{name} has strides {tensor.stride()}; make it contiguous first")


def _fits(found: torch.Size, shape: Sequence[int | None]) -> bool:
    if len(found) != len(shape):
        return False
    # A plain loop, which takes half the time of `all` over a generator.
    for want, have in zip(shape, found, strict=True):  # noqa: SIM110
        if want is not None and want != have:
            return False
    return True


def power_of_two(n: int) -> int:
    """The least power of two that is at least n."""
    return 1 << max(0, n - 1).bit_length()
