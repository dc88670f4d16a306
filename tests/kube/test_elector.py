"""Election against a real API server, with the timing halved to keep the suite short where a wait is the subject."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.cluster.controlplane import ControlPlane
from kube.connection import Connection
from kube.elector import Elector
from kube.errors import Conflict, Fenced
from kube.lease import LeaseCalls, Timing, manifest
from tests.waiting import eventually_blocking

pytestmark = pytest.mark.apiserver

TIMING = Timing(lease_s=3.0, renew_s=2.0, retry_s=0.5)


class Candidate:
    def __init__(self, connection: Connection, lease: str, name: str, timing: Timing = TIMING) -> None:
        self.acquired, self.lost = threading.Event(), threading.Event()
        self.skew_s = 0.0
        self.elector = Elector(
            connection,
            namespace="default",
            name=lease,
            identity=name,
            on_acquired=self.acquired.set,
            on_lost=lambda why: self.lost.set(),
            timing=timing,
            clock=lambda: time.monotonic() + self.skew_s,
        )
        self.elector.start()

    def die(self) -> None:
        """As kill -9 would: no release, no further renewal."""
        self.elector._calls._timeout_s = 0.0
        self.elector._look_and_act = lambda: None  # type: ignore[method-assign]


def stolen(calls: LeaseCalls) -> bool:
    lease = calls.get()
    assert lease is not None
    version = lease.resource_version
    try:
        calls.update(
            manifest("default", "taken", holder="thief", timing=TIMING, transitions=1, resource_version=version)
        )
    except Conflict:
        return False  # The leader renewed in between.
    return True


@pytest.fixture
def connection(apiserver: ControlPlane) -> Connection:
    return Connection.from_environment(apiserver.kubeconfig)


@pytest.fixture
def started() -> Iterator[list[Candidate]]:
    candidates: list[Candidate] = []
    yield candidates
    for candidate in candidates:
        candidate.elector.stop()


def test_one_of_two_leads_and_the_other_may_not_write(connection: Connection, started: list[Candidate]) -> None:
    started += [Candidate(connection, "one-of-two", name) for name in ("a", "b")]
    eventually_blocking(lambda: any(one.elector.is_leader() for one in started), "a leader")
    deadline_s = time.monotonic() + 1.5
    while time.monotonic() < deadline_s:
        assert sum(one.elector.is_leader() for one in started) == 1
        time.sleep(0.02)
    (standby,) = [one for one in started if not one.elector.is_leader()]
    with pytest.raises(Fenced, match="does not lead 'default/one-of-two'"):
        standby.elector.fence()


def test_after_a_clean_stop_the_standby_takes_over_in_less_than_two_seconds(
    connection: Connection, started: list[Candidate]
) -> None:
    product = Timing()
    first = Candidate(connection, "clean-stop", "a", product)
    started.append(first)
    assert first.acquired.wait(5)
    second = Candidate(connection, "clean-stop", "b", product)
    started.append(second)
    began_s = time.monotonic()
    first.elector.stop()
    assert second.acquired.wait(5)
    assert time.monotonic() - began_s < 2.0
    assert not first.lost.is_set()
    assert not first.elector.is_leader()


def test_after_a_kill_the_standby_takes_over_when_the_lease_has_run_out(
    connection: Connection, started: list[Candidate]
) -> None:
    first = Candidate(connection, "killed", "a")
    started.append(first)
    assert first.acquired.wait(5)
    second = Candidate(connection, "killed", "b")
    started.append(second)
    eventually_blocking(lambda: second.elector._sighting is not None, "the standby has seen the leader")
    began_s = time.monotonic()
    first.die()
    assert second.acquired.wait(10)
    assert TIMING.lease_s - TIMING.retry_s <= time.monotonic() - began_s < TIMING.lease_s + 2 * TIMING.retry_s + 1.0
    assert first.lost.is_set(), "the old leader noticed before the new one came"


def test_a_leader_that_was_frozen_writes_nothing_when_it_wakes(
    connection: Connection, started: list[Candidate]
) -> None:
    leader = Candidate(connection, "frozen", "a")
    started.append(leader)
    assert leader.acquired.wait(5)
    leader.elector.fence()
    leader.skew_s = 60.0
    with pytest.raises(Fenced):
        leader.elector.fence()
    assert leader.lost.wait(5)


def test_a_leader_whose_lease_was_taken_by_another_stops_at_once(
    connection: Connection, started: list[Candidate]
) -> None:
    leader = Candidate(connection, "taken", "a")
    started.append(leader)
    assert leader.acquired.wait(5)
    calls = LeaseCalls(connection, "default", "taken", 2.0)
    eventually_blocking(lambda: stolen(calls), "the lease of another")
    assert leader.lost.wait(2 * TIMING.retry_s + 1.0)
    calls.close()


def test_a_short_absence_of_the_api_server_is_survived_and_a_long_one_is_not() -> None:
    with ControlPlane() as server:
        leader = Candidate(Connection.from_environment(Path(server.kubeconfig)), "absent", "a", Timing(60, 40, 0.2))
        assert leader.acquired.wait(5)
        with server.apiserver_away():
            pass
        eventually_blocking(lambda: leader.elector._leads_until_s is not None, "a renewal")
        assert leader.elector.is_leader()
        with server.apiserver_away():
            leader.skew_s = 41.0
            assert leader.lost.wait(10)
        leader.elector.stop()
