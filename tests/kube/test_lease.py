import queue

import pytest

from kube.connection import Connection
from kube.elector import Elector
from kube.lease import Sighting, Step, Timing, next_step

TIMING = Timing(lease_s=6, renew_s=4, retry_s=1)


@pytest.mark.parametrize(
    ("sighting", "now_s", "step"),
    [
        (None, 0.0, Step.CREATE),
        (Sighting("me", "1", 0.0), 100.0, Step.RENEW),
        (Sighting("", "1", 0.0), 0.0, Step.TAKE),
        (Sighting("other", "1", 10.0), 16.0, Step.WAIT),
        (Sighting("other", "1", 10.0), 16.1, Step.TAKE),
    ],
)
def test_a_candidate_waits_the_whole_lease_after_the_last_change_it_saw(
    sighting: Sighting | None, now_s: float, step: Step
) -> None:
    assert next_step(sighting, "me", now_s, TIMING) is step


def test_a_renewal_by_the_holder_starts_the_wait_anew() -> None:
    seen = Sighting("other", "1", 10.0)
    assert seen.seen_again("other", "1", 15.0).unchanged_since_s == 10.0
    assert seen.seen_again("other", "2", 15.0).unchanged_since_s == 15.0


def test_a_timing_in_which_two_could_lead_is_refused() -> None:
    with pytest.raises(ValueError, match="retry_s < renew_s < lease_s"):
        Timing(lease_s=4, renew_s=6, retry_s=1)


def test_a_candidate_that_meets_what_it_does_not_know_says_so_and_does_not_stand_aside_in_silence() -> None:
    def token() -> str:
        raise ValueError("the login plugin printed nonsense")  # Whatever a kubeconfig's plugin comes to.

    said: queue.Queue[str] = queue.Queue()
    elector = Elector(
        Connection("http://127.0.0.1:1", None, token),
        namespace="default",
        name="lease",
        identity="me",
        on_acquired=lambda: said.put("leads"),
        on_lost=said.put,
    )
    elector.start()
    assert said.get(timeout=60) == "'me' lost the lease 'default/lease': ValueError: the login plugin printed nonsense"
    assert not elector.is_leader()
