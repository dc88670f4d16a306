"""Readers of traces: each format, and what is said of a row that cannot be read."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest

from forecasting.simulator.arrivals import lengths_of
from forecasting.simulator.servegen import arrival_times, read_clients, requests_of, seconds_of
from forecasting.simulator.traces import TraceInvalid, read_requests

AZURE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:47.1805900,396,109\n"
)
AZURE_2024 = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    "2024-05-10 00:00:00.009930+00:00,374,44\n2024-05-10T02:00:00.50993+02:00,396,109\n2024-05-10 00:00:01Z,9,1\n"
)
MOONCAKE = """{"timestamp": 0, "input_length": 10, "output_length": 5, "hash_ids": [1]}
{"timestamp": 1500, "input_length": 7, "output_length": 1}
"""
AIBRIX = """{"timestamp": 6011, "requests": [{"Prompt Length": 178, "Output Length": 8, "prompt": "x"}, \
{"Prompt Length": 3, "Output Length": 9}]}
"""
PLAIN = "arrival_s,input_tokens,output_tokens\n2.5,10,3\n1.0,20,4\n\n"


@pytest.mark.parametrize(
    ("text", "times", "inputs", "outputs"),
    [
        (AZURE, [0.0, 0.5], [374, 396], [44, 109]),
        (AZURE_2024, [0.0, 0.5, 0.99007], [374, 396, 9], [44, 109, 1]),
        (MOONCAKE, [0.0, 1.5], [10, 7], [5, 1]),
        (AIBRIX, [0.0, 0.0], [178, 3], [8, 9]),
        (PLAIN, [0.0, 1.5], [20, 10], [4, 3]),
    ],
    ids=["azure", "azure of 2024", "mooncake", "aibrix", "plain"],
)
def test_each_format_is_told_by_its_first_line(
    text: str, times: list[float], inputs: list[int], outputs: list[int]
) -> None:
    found = read_requests("trace", text.splitlines())
    assert found.arrival_s == pytest.approx(times)
    assert found.input_tokens.tolist() == inputs
    assert found.output_tokens.tolist() == outputs


def test_a_trace_of_millions_fits_into_memory() -> None:
    n = 20_000
    lines = (f"{at}.5,{at % 999 + 300},{at % 99 + 300}" for at in range(n))
    tracemalloc.start()
    try:
        read_requests("trace", itertools.chain(["arrival_s,input_tokens,output_tokens"], lines))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak / n < 120, "bytes a request; three objects of Python and a tuple take over 200"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "t.csv: empty"),
        ("arrival_s,input_tokens,output_tokens\n", "no request after the header"),
        ("hello\n", "line 1: 'hello' is no known format"),
        ("arrival_s,input_tokens,output_tokens\n1,2,3\n2,x,3\n", "t.csv, line 3: cannot be read"),
        ("arrival_s,input_tokens,output_tokens\n1,2\n", "t.csv, line 2: cannot be read"),
        ("arrival_s,input_tokens,output_tokens\n-1,2,3\n", "t.csv, line 2: arrival -1.0"),
        ("arrival_s,input_tokens,output_tokens\nnan,2,3\n", "t.csv, line 2: arrival nan"),
        ("arrival_s,input_tokens,output_tokens\n1,-2,3\n", "none may be negative"),
        ('{"timestamp": "soon", "input_length": 1, "output_length": 1}\n', "timestamp is 'soon'; a number is needed"),
        ('{"timestamp": 1, "input_length": 1}\n', "t.csv, line 1: cannot be read"),
        (AZURE + "yesterday,1,2\n", "t.csv, line 4: cannot be read"),
    ],
)
def test_a_bad_row_is_refused_with_file_and_line(text: str, says: str) -> None:
    with pytest.raises(TraceInvalid) as refused:
        read_requests("t.csv", text.splitlines())
    assert says in str(refused.value)


CLIENT_A = ["0,2.0,0.9,Gamma,1.2,0.4", "600,4.0,3.0,Gamma,0.1,2.5", "1200,0,0,,0,0", "1800,2.0,1.0,Weibull,0.8,0.5"]
CLIENT_B = ["0,1.0,1.0,Weibull,1.0,1.0", "600,0,0,,0,0", "1200,0,0,,0,0", "1800,0,0,,0,0"]


def test_the_counts_of_servegen_windows_are_kept_exactly_and_gaps_are_filled() -> None:
    clients = read_clients({"a": CLIENT_A, "b": CLIENT_B})
    times = arrival_times(clients, 1.0, seed=0)
    counts = np.bincount((times // 600).astype(int))
    # The third window is all zero, a gap: it takes the mean of those around it.
    assert counts.tolist() == [1800, 2400, 1800, 1200]
    assert (np.diff(times) >= 0).all()


def test_thinning_keeps_the_share_and_the_burstiness() -> None:
    clients = read_clients({"a": [f"{600 * at},50,4.0,Gamma,0.0625,0.32" for at in range(20)]})
    times = arrival_times(clients, 0.2, seed=1)
    assert len(times) == pytest.approx(0.2 * 50 * 600 * 20, rel=0.05)
    counts = np.bincount(times.astype(int), minlength=12_000)
    assert counts.var() / counts.mean() > 2  # a Poisson process has 1


def test_counting_by_the_second_is_the_same_as_single_requests() -> None:
    clients = read_clients({"a": CLIENT_A, "b": CLIENT_B})
    inputs, outputs = np.array([10, 30]), np.array([5, 7])
    lengths = lengths_of(inputs.astype(float), outputs.astype(float))
    seconds = seconds_of(clients, 0.5, inputs, lengths, seed=3)
    times = arrival_times(clients, 0.5, seed=3)
    assert len(seconds) == 2400
    assert np.array_equal(seconds.counts, np.bincount(times.astype(int), minlength=2400))
    requests = requests_of(times, inputs, outputs, 2400.0, seed=3)
    assert requests.input_tokens.sum() == pytest.approx(seconds.inputs.sum(), rel=0.05)


@pytest.mark.parametrize(
    "row", ["0,1,1,Gamma,1", "0,1,1,Pareto,1,1", "5,1,1,Gamma,1,1", "0,-1,1,Gamma,1,1", "0,nan,1,Gamma,1,1"]
)
def test_a_bad_window_is_refused_with_file_and_line(row: str) -> None:
    with pytest.raises(TraceInvalid, match=r"chunk-1, line 2"):
        read_clients({"chunk-1": ["600,1,1,Gamma,1,1", row]})
