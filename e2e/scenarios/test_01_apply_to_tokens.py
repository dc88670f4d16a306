"""The promise of the product: apply, wait, ask."""

from __future__ import annotations

import time
from collections.abc import Callable

from e2e.scenarios.world import MODEL, QUESTION, World, until

Measured = Callable[[str, str], None]


def test_a_service_goes_from_apply_to_a_streamed_answer(world: World, measured: Measured) -> None:
    started = time.monotonic()
    with world.serving("first"):
        measured("apply → Servable (image and model present)", f"{time.monotonic() - started:.1f} s")
        asked = time.monotonic()
        stream = world.client().chat.completions.create(
            model="first",
            messages=[{"role": "user", "content": QUESTION}],
            max_tokens=24,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
        pieces, first_s, usage = [], None, None
        for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                first_s = first_s or time.monotonic() - asked
                pieces.append(chunk.choices[0].delta.content)
            usage = chunk.usage or usage
        assert "Paris" in "".join(pieces)
        assert len(pieces) > 3
        assert usage is not None
        assert usage.completion_tokens > 3
        measured("request → first token", f"{(first_s or 0) * 1000:.0f} ms")
        assert "Paris" in world.ask("demo/first")
        assert "first" in {model.id for model in world.client().models.list()}


def test_kubectl_shows_what_a_person_asks_first(world: World) -> None:
    with world.serving("seen"):
        lines = world.kubectl("-n", "demo", "get", "inferenceservice", "seen").splitlines()
        row = dict(zip(lines[0].split(), lines[1].split(), strict=False))
        assert row["MODEL"] == MODEL
        assert row["READY"] == row["SERVABLE"] == "True"
        assert row["REPLICAS"] == "1/1"
        described = world.kubectl("-n", "demo", "describe", "inferenceservice", "seen")
        assert "Traceback" not in described
        assert "Servable" in described


def test_what_is_missing_is_named_and_heals_when_it_appears(world: World) -> None:
    wanted = world.service("orphan", model="smollm2-135", sla="gold")
    world.kubectl.apply(wanted)
    try:
        stalled = until(lambda: world.condition("inferenceservice/orphan", "Stalled"), "Stalled", 20)
        assert stalled["reason"] == "ModelNotFound"
        assert f"did you mean '{MODEL}'?" in stalled["message"]
        wanted["spec"]["model"] = MODEL
        world.kubectl.apply(wanted)
        stalled = until(
            lambda: (
                c if (c := world.condition("inferenceservice/orphan", "Stalled")).get("reason") == "SLANotFound" else {}
            ),
            "SLANotFound",
            20,
        )
        assert "'gold'" in stalled["message"]
        world.kubectl.apply(
            {
                "apiVersion": "foretide.dev/v1alpha1",
                "kind": "SLA",
                "metadata": {"name": "gold", "namespace": "demo"},
                "spec": {"priority": "P1", "targets": {"ttft": "1s"}},
            }
        )
        world.wait("inferenceservice/orphan")
        assert not world.condition("inferenceservice/orphan", "Stalled")
    finally:
        world.kubectl("-n", "demo", "delete", "inferenceservice/orphan", "sla/gold", "--ignore-not-found")
