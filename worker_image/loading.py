"""Opens a checkpoint for serving: the engine process starts at once, and everything that can be refused without
torch is checked meanwhile. Used by every subcommand.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from worker_image import VERSION
from worker_image.checkpoint.fingerprint import fingerprint
from worker_image.checkpoint.source import find_checkpoint, parse_digest, verify_checkpoint
from worker_image.checkpoint.tokenizer import Vocabulary
from worker_image.checkpoint.vocabulary import open_vocabulary
from worker_image.engine.client import EngineClient
from worker_image.engine.messages import Device, Progress, Ready
from worker_image.kernel_cache import fill_kernel_cache
from worker_image.profile import Shape
from worker_image.settings import ModelSettings
from worker_image.text.chat_template import ChatTemplate
from worker_image.text.detokenizer import TokenBytes
from worker_image.text.tool_format import MARKERS


@dataclass(frozen=True)
class Text:
    """The checkpoint's text side, which lives in the server process."""

    vocabulary: Vocabulary
    token_bytes: TokenBytes
    template: ChatTemplate | None
    fingerprint: str


@dataclass(frozen=True)
class Loaded:
    text: Text
    engine: Ready


def shape_of(settings: ModelSettings, loaded: Loaded) -> Shape:
    """What its benchmark has to keep to."""
    engine = loaded.engine
    return Shape(
        n_vocabulary=len(loaded.text.vocabulary.tokens),
        max_model_len=engine.max_model_len,
        kv_tokens=engine.kv_tokens,
        max_num_seqs=settings.max_num_seqs,
        step_tokens=settings.step_tokens,
    )


async def start_engine(settings: ModelSettings, on_progress: Callable[[Progress], None]) -> tuple[Path, EngineClient]:
    """Starts the engine process, which begins to load. Raises CheckpointError where there is no file to load."""
    path = find_checkpoint(settings.path, settings.load_format)
    if settings.digest is not None:
        parse_digest(settings.digest)
    if settings.device is Device.CUDA:
        await asyncio.to_thread(fill_kernel_cache, os.environ)
    return path, await EngineClient.start(settings.engine(path), on_progress)


async def finish_loading(settings: ModelSettings, path: Path, engine: EngineClient) -> Loaded:
    """Waits for the engine and for our own half. Raises the first CheckpointError or EngineError of either."""
    given_up = Event()
    try:
        text, ready = await asyncio.gather(asyncio.to_thread(_load_text, settings, path, given_up), engine.wait_ready())
    finally:
        # A thread cannot be cancelled, and the process would not end before it: a large model takes minutes to hash.
        given_up.set()
    return Loaded(text, ready)


def _load_text(settings: ModelSettings, path: Path, given_up: Event) -> Text:
    if settings.digest is not None:
        verify_checkpoint(settings.path, path, settings.digest, given_up)
    vocabulary = open_vocabulary(path, settings.load_format)
    # Some vocabularies call the tags around tool calls special, which would hide them.
    hidden = frozenset(i for i in vocabulary.special_ids if vocabulary.tokens[i] not in MARKERS)
    token_bytes = TokenBytes(vocabulary.tokens, hidden)
    source, template = vocabulary.chat_template, None
    if source is not None:
        template = ChatTemplate(source, bos_token=vocabulary.bos_token, eos_token=vocabulary.eos_token)
    # Not the threads or the batch: they do not change what is said, or no more than a neighbour in the batch does.
    facts = (VERSION, settings.load_format, settings.device, settings.deterministic)
    return Text(vocabulary, token_bytes, template, fingerprint(path, facts))
