"""Every command and every manifest of the handbook is read by what would read it in earnest, or says what it needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.handbook.blocks import ROOT, Block, blocks, pages
from tests.handbook.readers import problem_of, problem_of_yaml


def problems(block: Block) -> list[str]:
    if block.kind == "yaml":
        found = [problem_of_yaml(block.text)]
    else:
        found = [problem_of(command) for command in block.commands]
    return [f"{block}: {one}" for one in found if one is not None]


@pytest.mark.parametrize("path", pages(), ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_page_tells_people_to_type_could_work(path: Path) -> None:
    found = [problem for block in blocks(path) if block.needs is None for problem in problems(block)]
    assert not found, "\n".join(found)


def test_there_are_blocks_of_both_kinds() -> None:
    found = [block for path in pages() for block in blocks(path)]
    assert sum(block.kind == "console" for block in found) > 30
    assert sum(block.kind == "yaml" for block in found) > 10


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("kubectl get inferenceservicez", "inferenceservicez"),
        ("kubectl apply -f examples/none.yaml", "examples/none.yaml"),
        ("kubectl get isvc chat -o jsonpath='{.status.nothing}'", "status.nothing"),
        ("kubectl get pods -l foretide.dev/nothing=x", "foretide.dev/nothing"),
        ("""kubectl patch isvc chat -p '{"spec":{"rolout":{}}}'""", "rolout"),
        ("kubectl foretide explian chat", "explian"),
        ("foretide silence policy service=chat --nothing", "nothing"),
        ("helm upgrade foretide charts/foretide --set gateway.nothing=1", "nothing"),
        ("make nothing", "nothing"),
        ("curl http://localhost/v1/nothing", "/v1/nothing"),
        ("python -m worker_image serve", "refuses"),
        ("docker build -f none/Dockerfile .", "none/Dockerfile"),
        ("terraform apply", "terraform"),
    ],
)
def test_a_wrong_command_is_found(command: str, said: str) -> None:
    assert said in (problem_of(command) or "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: InferenceService\nspec: {modell: x}", "modell"),
        ("gateway: {replicas: many}", "neither"),
        ("spec: {weight: 0}", "neither"),
        ("kind: Deployment", "not ours"),
        ("apiVersion: foretide.dev/v1alpha1\nkind: SLA\nmetadata: {name: a}\nspec: {priority: P9}", "P9"),
    ],
)
def test_a_wrong_manifest_is_found(text: str, said: str) -> None:
    assert said in (problem_of_yaml(text) or "")
