"""What is wrong is refused at the door, with a sentence, and nothing else notices."""

from __future__ import annotations

from typing import Any

import pytest

from e2e.cluster.errors import CommandFailed
from e2e.install import resource
from e2e.scenarios.world import World


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"scaling": {"max": 2}, "replicas": 1}, "set either replicas or scaling, not both"),
        ({"accelerator": {"cpu": {}, "gpu": {}}}, "set exactly one of cpu, gpu, mig and shared"),
        ({"replicas": -1}, "spec.replicas in body should be greater than or equal to 0"),
        ({"accelerator": {"cpu": {"cores": "many"}}}, "spec.accelerator.cpu.cores"),
    ],
)
def test_a_bad_service_is_refused_with_a_sentence(world: World, spec: dict[str, Any], sentence: str) -> None:
    bad = world.service("bad", **spec)
    bad["spec"].update(spec)
    with pytest.raises(CommandFailed) as refused:
        world.kubectl.apply(bad)
    assert sentence in refused.value.output
    assert world.get("inferenceservice/bad") is None


def test_a_model_never_changes_its_source(world: World) -> None:
    world.kubectl.apply(resource("Model", "fixed", "demo", source="file:///nowhere/a.gguf"))
    try:
        with pytest.raises(CommandFailed) as refused:
            world.kubectl.apply(resource("Model", "fixed", "demo", source="file:///nowhere/b.gguf"))
        assert "source is immutable" in refused.value.output
    finally:
        world.kubectl("-n", "demo", "delete", "model", "fixed", "--timeout=60s")


def test_a_source_outside_the_allowed_folders_is_a_condition_that_names_the_value(world: World) -> None:
    from e2e.scenarios.world import until

    world.kubectl.apply(resource("Model", "outside", "demo", source="file:///etc/hostname"))
    try:
        stalled = until(lambda: world.condition("model/outside", "Stalled"), "Stalled", 30)
        assert "modelCache.fileRoots" in stalled["message"]
    finally:
        world.kubectl("-n", "demo", "delete", "model", "outside", "--timeout=60s")
