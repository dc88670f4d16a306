"""Kernels that an image brings along, put where Triton looks for them and may add to them.

An image's own file system is read-only when the worker runs, and Triton writes beside what it finds. Compiles nothing.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)
IMAGE_KERNELS: Final = Path("/app/kernels")
"""Written by `worker_image.kernels.precompile` while an image is built."""
CACHE_VARIABLE: Final = "TRITON_CACHE_DIR"


def fill_kernel_cache(environment: Mapping[str, str], brought: Path = IMAGE_KERNELS) -> None:
    """Nothing where the image brings none, or where the cache has been filled by an earlier start."""
    if CACHE_VARIABLE not in environment or not brought.is_dir():
        return
    cache = Path(environment[CACHE_VARIABLE])
    if cache.exists():
        return
    # Under another name until all is there: a start that was killed would leave half a kernel, which Triton trusts.
    copying = cache.with_name(f"{cache.name}.part")
    shutil.rmtree(copying, ignore_errors=True)
    try:
        shutil.copytree(brought, copying)
        copying.rename(cache)
    except OSError as error:
        shutil.rmtree(copying, ignore_errors=True)
        # Compiling them is slower, and as good.
        log.warning("the image's kernels cannot be copied to %s: %s", cache, error)
