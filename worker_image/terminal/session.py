"""A loaded model for as long as a terminal command needs it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from worker_image.engine.client import EngineClient
from worker_image.loading import Loaded, finish_loading, start_engine
from worker_image.progress import show_progress
from worker_image.settings import ModelSettings


@asynccontextmanager
async def loaded_engine(settings: ModelSettings) -> AsyncIterator[tuple[Loaded, EngineClient]]:
    """Raises CheckpointError or EngineError where the model cannot be loaded."""
    path, engine = await start_engine(settings, show_progress())
    try:
        yield await finish_loading(settings, path, engine), engine
    finally:
        await engine.stop()
