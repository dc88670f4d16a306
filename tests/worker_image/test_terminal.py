"""A conversation at a terminal."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from worker_image.settings import ModelSettings
from worker_image.terminal import chat as terminal
from worker_image.text.chat_template import ChatTemplate

PICKY = "{% if messages[0].content == 'no' %}{{ raise_exception('say something else') }}{% endif %}text"


async def test_what_the_template_refuses_is_said_and_the_conversation_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    template = ChatTemplate(PICKY, bos_token="", eos_token="")
    vocabulary = SimpleNamespace(encode=lambda text, add_bos: [1] * len(text))
    loaded = SimpleNamespace(
        text=SimpleNamespace(template=template, vocabulary=vocabulary), engine=SimpleNamespace(max_model_len=2)
    )

    @asynccontextmanager
    async def loaded_engine(_: object) -> AsyncIterator[tuple[object, None]]:
        yield loaded, None

    said = iter(["no", "yes", None])
    monkeypatch.setattr(terminal, "loaded_engine", loaded_engine)
    monkeypatch.setattr(terminal, "_read_line", lambda: next(said))
    assert await terminal.chat(cast("ModelSettings", SimpleNamespace(path=Path("model")))) == 0
    assert capsys.readouterr().out.splitlines() == [
        "(the model's chat template refuses these messages: say something else.)",
        "(that is 4 tokens; this model's context is 2)",
    ]
