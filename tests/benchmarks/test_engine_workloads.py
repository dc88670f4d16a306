"""The workloads of the engine benchmark: the token rule, what is read from files, and what becomes of times."""

from pathlib import Path

import pytest

from benchmarks.engine.anchors import ANCHORS, Anchor
from benchmarks.engine.driver import Answer, Outcome
from benchmarks.engine.measures import check, medians, numbers
from benchmarks.engine.quick import write_rules
from benchmarks.engine.workloads import Request, Rules, Workload, splitmix64_tokens


@pytest.fixture
def rules(tmp_path: Path) -> Rules:
    return Rules(write_rules(tmp_path))


def test_tokens_are_those_of_splitmix64() -> None:
    """The generator's published first outputs from seed 0, and a request's own start."""
    assert splitmix64_tokens(0, 0, 1, 10**18) == [0xE220A8397B1DCDAF % 10**18]
    assert splitmix64_tokens(100, 3, 4, 100_000) == [82719, 81070, 17708, 69496]


def test_a_token_depends_on_nothing_but_seed_request_and_index() -> None:
    assert splitmix64_tokens(5, 1, 10, 97)[:4] == splitmix64_tokens(5, 1, 4, 97)
    assert splitmix64_tokens(5, 1, 4, 97) != splitmix64_tokens(6, 1, 4, 97)


def test_each_repeat_has_new_prompts_of_the_same_lengths(rules: Rules) -> None:
    first, second = rules.offline(0), rules.offline(1)
    assert [len(request.prompt) for request in first.requests] == [len(request.prompt) for request in second.requests]
    assert all(a.prompt != b.prompt for a, b in zip(first.requests, second.requests, strict=True))


def test_requests_of_the_prefix_workload_share_exactly_the_prefix(rules: Rules) -> None:
    a, b, *_ = rules.prefix(0).requests
    assert a.prompt[:32] == b.prompt[:32]
    assert a.prompt[32:] != b.prompt[32:]
    assert len(a.prompt) == 37


def test_online_requests_arrive_when_the_file_says_with_the_offline_lengths(rules: Rules) -> None:
    online, offline = rules.online("50"), rules.offline(0)
    assert [request.at_s for request in online.requests] == [0.01, 0.02, 0.05]
    assert len(online.requests[1].prompt) == len(offline.requests[1].prompt)


def test_a_missing_rule_file_is_named(tmp_path: Path) -> None:
    write_rules(tmp_path)
    (tmp_path / "w3_8b_latency.json").unlink()
    with pytest.raises(SystemExit, match=r"w3_8b_latency\.json missing"):
        Rules(tmp_path)


def workload(*lengths: int) -> Workload:
    return Workload("w", "m", 0.0, tuple(Request([1, 2], length) for length in lengths))


def test_ttft_counts_from_when_a_request_was_due_and_tpot_without_the_first_token() -> None:
    answers = (Answer(0.0, 0.1, 0.5, [1] * 5), Answer(1.0, 1.3, 1.3, [1]))
    found = numbers(workload(5, 1), Outcome(2.0, answers, 6, 0, 0.01, 0.3, 0.1))
    assert found["output_tokens_per_s"] == 3.0
    assert found["ttft_ms"] == pytest.approx(200.0)
    assert found["tpot_ms"] == pytest.approx(100.0)


def test_an_answer_of_another_length_than_forced_is_no_measurement() -> None:
    with pytest.raises(ValueError, match="request 0: 1 tokens came; the workload asks for exactly 2"):
        check(workload(2), Outcome(1.0, (Answer(0.0, 0.1, 0.1, [7]),), 1, 0, 0.0, 0.1, 0.1))


def test_medians_are_taken_number_by_number() -> None:
    assert medians([{"a": 1.0, "b": 9.0}, {"a": 3.0, "b": 7.0}, {"a": 2.0, "b": 8.0}]) == {"a": 2.0, "b": 8.0}


def test_a_goal_is_a_ratio_to_the_figure_of_the_card_at_hand() -> None:
    assert ANCHORS["w1", "output_tokens_per_s"].goal("NVIDIA H200") == pytest.approx(28_698)
    assert Anchor(100.0, 200.0, 1.2).goal("NVIDIA H100 80GB HBM3") == pytest.approx(120.0)
    assert Anchor(100.0, 200.0, 1.2).goal("NVIDIA L40S") is None
