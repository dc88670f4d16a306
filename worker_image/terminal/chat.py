"""`chat`: a conversation in the terminal. Ctrl-D ends it."""

from __future__ import annotations

import asyncio

from worker_image.engine.client import EngineClient
from worker_image.engine.messages import Finish, Sampling
from worker_image.errors import RequestError, SettingsError
from worker_image.loading import Loaded
from worker_image.settings import ModelSettings
from worker_image.terminal.session import loaded_engine
from worker_image.text.chat_template import ChatTemplate
from worker_image.text.detokenizer import Detokenizer


async def chat(settings: ModelSettings) -> int:
    """Raises SettingsError for a model without a chat template."""
    async with loaded_engine(settings) as (loaded, engine):
        template = loaded.text.template
        if template is None:
            raise SettingsError(f"{settings.path}: the checkpoint has no chat template, so there is nobody to talk to.")
        messages: list[dict[str, str]] = []
        while (said := await asyncio.to_thread(_read_line)) is not None:
            messages.append({"role": "user", "content": said})
            try:
                answer = await _answer(loaded, template, engine, messages)
            except RequestError as error:
                print(f"({error})")
                del messages[-1]
            else:
                messages.append({"role": "assistant", "content": answer})
    return 0


def _read_line() -> str | None:
    try:
        return input("> ")
    except EOFError:
        print()
        return None


async def _answer(loaded: Loaded, template: ChatTemplate, engine: EngineClient, messages: list[dict[str, str]]) -> str:
    """Prints the answer as it comes. A conversation that outgrew the context loses its oldest messages."""
    vocabulary, longest = loaded.text.vocabulary, loaded.engine.max_model_len
    prompt = vocabulary.encode(template.render(messages), add_bos=False)
    while len(prompt) >= longest and len(messages) > 1:
        del messages[:2]
        prompt = vocabulary.encode(template.render(messages), add_bos=False)
    if len(prompt) >= longest:
        print(f"(that is {len(prompt)} tokens; this model's context is {longest})")
        return ""
    sampling = Sampling(longest - len(prompt), temperature=0.0, stop_ids=tuple(vocabulary.stop_ids))
    detokenizer, text = Detokenizer(loaded.text.token_bytes), ""
    async with engine.submit(prompt, sampling) as stream:
        async for tokens in stream:
            piece = "".join(detokenizer.push(t.token) for t in tokens if t.finish is not Finish.STOP)
            print(piece, end="", flush=True)
            text += piece
    print()
    return text
