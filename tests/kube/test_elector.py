"""Election against a real API server. Candidates have clocks of their own, so that no wait of the machine is a subject.

How long a candidate waits, by numbers, is in `test_lease.py`.
"""

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

TIMING = Timing(lease_s=600.0, renew_s=400.0, retry_s=0.5)
"""Nothing runs out by itself."""


class Candidate:
    def __init__(self, connection: Connection, lease: str, name: str, timing: Timing = TIMING) -> None:
        self.acquired, self.lost = threading.Event(), threading.Event()
        self.skew_s = 0.0
        self.looks = 0
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
        self._look = self.elector._look_and_act
        self.elector._look_and_act = self._counted  # type: ignore[method-assign]
        self.elector.start()

    def _counted(self) -> None:
        self.looks += 1
        self._look()

    def looks_again(self) -> None:
        """Returns when a look that began after this call has ended."""
        before = self.looks
        eventually_blocking(lambda: self.looks > before + 1, "two more looks")

    def die(self) -> None:
        """As kill -9 would: no release, no further renewal."""
        self.elector._look_and_act = lambda: None  # type: ignore[method-assign]
        self.skew_s = TIMING.renew_s
        assert self.lost.wait(60), "it notices, and a renewal that was under way has ended"


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


def leading(candidates: list[Candidate]) -> int:
    """How many lead now: the clock is read last, so that a candidate which lapsed meanwhile does not count."""
    until_s = [one.elector._leads_until_s or 0.0 for one in candidates]
    return sum(time.monotonic() < one for one in until_s)


def test_one_of_two_leads_and_the_other_may_not_write(connection: Connection, started: list[Candidate]) -> None:
    started += [Candidate(connection, "one-of-two", name) for name in ("a", "b")]
    eventually_blocking(lambda: leading(started) == 1, "a leader")
    deadline_s = time.monotonic() + 1.5
    while time.monotonic() < deadline_s:
        assert leading(started) <= 1
        time.sleep(0.02)
    standby = next(one for one in started if not one.elector.is_leader())
    with pytest.raises(Fenced, match="does not lead 'default/one-of-two'"):
        standby.elector.fence()


def test_after_a_clean_stop_the_standby_takes_over_at_its_next_look(
    connection: Connection, started: list[Candidate]
) -> None:
    first = Candidate(connection, "clean-stop", "a")
    started.append(first)
    assert first.acquired.wait(60)
    second = Candidate(connection, "clean-stop", "b")
    started.append(second)
    second.looks_again()
    assert not second.acquired.is_set()
    first.elector.stop(60)
    looks = second.looks
    assert second.acquired.wait(60)
    assert second.looks - looks <= 1
    assert not first.lost.is_set()
    assert not first.elector.is_leader()


def test_after_a_kill_the_standby_takes_over_when_the_lease_has_run_out(
    connection: Connection, started: list[Candidate]
) -> None:
    first = Candidate(connection, "killed", "a")
    started.append(first)
    assert first.acquired.wait(60)
    second = Candidate(connection, "killed", "b")
    started.append(second)
    first.die()
    second.looks_again()
    seen = second.elector._sighting
    assert seen is not None
    assert seen.holder == "a"
    second.skew_s = TIMING.lease_s - 60
    second.looks_again()
    assert not second.acquired.is_set(), "a minute of the lease is left"
    second.skew_s = TIMING.lease_s
    assert second.acquired.wait(60)
    assert not first.elector.is_leader()


def test_a_leader_that_was_frozen_writes_nothing_when_it_wakes(
    connection: Connection, started: list[Candidate]
) -> None:
    leader = Candidate(connection, "frozen", "a")
    started.append(leader)
    assert leader.acquired.wait(60)
    leader.elector.fence()
    leader.skew_s = TIMING.renew_s
    with pytest.raises(Fenced):
        leader.elector.fence()
    assert leader.lost.wait(60)


def test_a_leader_whose_lease_was_taken_by_another_stops_at_once(
    connection: Connection, started: list[Candidate]
) -> None:
    leader = Candidate(connection, "taken", "a")
    started.append(leader)
    assert leader.acquired.wait(60)
    calls = LeaseCalls(connection, "default", "taken", 60.0)
    eventually_blocking(lambda: stolen(calls), "the lease of another")
    assert leader.lost.wait(60)
    calls.close()


def test_a_short_absence_of_the_api_server_is_survived_and_a_long_one_is_not() -> None:
    with ControlPlane() as server:
        leader = Candidate(Connection.from_environment(Path(server.kubeconfig)), "absent", "a")
        assert leader.acquired.wait(60)
        with server.apiserver_away():
            pass
        eventually_blocking(lambda: leader.elector._leads_until_s is not None, "a renewal")
        assert leader.elector.is_leader()
        with server.apiserver_away():
            leader.skew_s = TIMING.renew_s
            assert leader.lost.wait(60)
        leader.elector.stop()
