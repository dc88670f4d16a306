"""After all that the others did: no process was refused anything, and none may do what it had no need of."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2e.cluster.cluster import Cluster
from e2e.rights import WIDEST, Difference, asked, compare, granted, rendered, written
from e2e.scenarios.world import Late, until

FLUSHED_S = 120.0
"""The API server writes its log in batches, half a minute apart at most."""


@pytest.fixture
def log(own_cluster: Cluster | None) -> Path:
    if own_cluster is None:
        pytest.skip("a given cluster keeps its audit log elsewhere")
    return own_cluster.control_plane.directory


def difference(log: Path, began: str) -> Difference:
    """Beside the roles of a chart that has every part in use. A right may have been used at any time of the cluster."""
    return compare(granted(rendered(*WIDEST)), *asked(written(log), began))


def test_nobody_was_refused_anything(log: Path, began: str) -> None:
    assert [str(request) for request in difference(log, began).denied] == []


def test_every_right_was_used_or_has_its_reason(log: Path, began: str, request: pytest.FixtureRequest) -> None:
    ran = {item.path for item in request.session.items}
    if not ran.issuperset(Path(__file__).parent.glob("test_*.py")) or request.config.option.keyword:
        pytest.skip("only the whole of the scenarios uses every right")
    try:
        until(lambda: not difference(log, began).unused, "every right was used", FLUSHED_S, every_s=5.0)
    except Late:
        unused = [str(right) for right in difference(log, began).unused]
        pytest.fail("\n".join(["Use them, take them out of the chart, or say in e2e.rights.RARE why:", *unused]))
