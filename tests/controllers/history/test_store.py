"""The embedded store: counts with gaps, over restarts, within its bounds."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from controllers.history.counters import Row
from controllers.history.interface import Counts, ServiceId, StoreUnusable, empty, joined
from controllers.history.scraper import Scraper
from controllers.history.store import COLD_STARTS_KEPT, DECISIONS_KEPT, Limits, Store
from controllers.history.thread import StoreThread
from crds import contract
from tests.waiting import eventually

CHAT, OTHER = ServiceId("demo", "chat"), ServiceId("demo", "other")
DAY_S = 86_400.0
T0 = 1_800_000_000.0 // 600 * 600


def fill(
    store: Store, service: ServiceId, from_s: float, to_s: float, per_round: float, period_s: float = 15.0
) -> None:
    at_s = from_s
    while at_s < to_s:
        at_s += period_s
        store.add({service: (per_round, per_round, 2 * per_round, 3 * per_round)}, period_s, at_s)


def test_counts_come_back_in_steps_and_what_was_not_watched_is_a_gap() -> None:
    store = Store(None)
    fill(store, CHAT, T0, T0 + 600, 1.0)
    fill(store, CHAT, T0 + 1200, T0 + 1800, 2.0)
    got = store.counts(CHAT, T0, T0 + 2400, 600)
    np.testing.assert_allclose(got.arrivals, [40, np.nan, 80, np.nan])
    np.testing.assert_allclose(got.output_tokens, [120, np.nan, 240, np.nan])
    np.testing.assert_allclose(store.counts(CHAT, T0, T0 + 180, 60).arrivals, [4, 4, 4])


def test_a_step_watched_in_part_counts_as_a_whole_and_one_hardly_watched_is_a_gap() -> None:
    store = Store(None)
    fill(store, CHAT, T0, T0 + 300, 1.0)
    fill(store, CHAT, T0 + 600, T0 + 800, 1.0)
    np.testing.assert_allclose(store.counts(CHAT, T0, T0 + 1200, 600).arrivals, [40, np.nan])


def test_a_step_watched_twice_by_a_clock_that_was_set_back_counts_once() -> None:
    store = Store(None)
    fill(store, CHAT, T0, T0 + 600, 1.0)
    fill(store, CHAT, T0, T0 + 600, 1.0)
    np.testing.assert_allclose(store.counts(CHAT, T0, T0 + 600, 600).arrivals, [40])


def test_a_quiet_service_has_zeros_and_an_unknown_one_has_gaps() -> None:
    store = Store(None)
    fill(store, CHAT, T0, T0 + 600, 0.0)
    assert store.counts(CHAT, T0, T0 + 600, 600).arrivals.tolist() == [0.0]
    assert np.isnan(store.counts(OTHER, T0, T0 + 600, 600).arrivals).all()


def test_all_of_it_survives_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    store = Store(path)
    fill(store, CHAT, T0, T0 + 600, 1.0)
    store.add_cold_start("m on cpu", 12.5, T0)
    store.set_capacity("m on cpu", 90.0, T0)
    store.add_decisions([(CHAT, T0, "{}")])
    store.close()
    again = Store(path)
    assert again.counts(CHAT, T0, T0 + 600, 600).arrivals.tolist() == [40]
    assert (again.cold_starts(), again.capacities()) == ({"m on cpu": [12.5]}, {"m on cpu": 90.0})
    assert again.decisions(CHAT, 0, 10) == ["{}"]
    again.close()


def test_a_damaged_file_is_put_aside_and_begun_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "history.sqlite"
    path.write_bytes(b"this is no database, whatever its name says" * 100)
    store = Store(path)
    fill(store, CHAT, T0, T0 + 600, 1.0)
    store.close()
    assert [one.name for one in tmp_path.glob("*.damaged-*")]
    assert "is damaged" in caplog.text


def test_a_folder_that_cannot_be_written_is_refused_at_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnusable, match="cannot be made: "):
        Store(tmp_path / "file" / "history.sqlite")


def test_a_file_that_cannot_be_opened_now_is_not_taken_for_damaged(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    store = Store(path)
    fill(store, CHAT, T0, T0 + 600, 1.0)
    store.close()
    # As on a disk without room, or while another process holds the file: its log cannot be made.
    (tmp_path / "history.sqlite-wal").mkdir()
    with pytest.raises(StoreUnusable, match=r"cannot be opened: .+ Check its folder"):
        Store(path)
    (tmp_path / "history.sqlite-wal").rmdir()
    again = Store(path)
    assert again.counts(CHAT, T0, T0 + 600, 600).arrivals.tolist() == [40]
    again.close()
    assert not list(tmp_path.glob("*.damaged-*"))


@pytest.mark.parametrize(
    ("code", "free", "said"),
    [
        (sqlite3.SQLITE_FULL, 0, "there is no room on the disk of "),
        (sqlite3.SQLITE_CANTOPEN, 0, "there is no room on the disk of "),
        (sqlite3.SQLITE_IOERR_READ, 2**40, "cannot be opened: it failed. Check the disk of its folder."),
        (sqlite3.SQLITE_BUSY, 2**40, "cannot be opened: it failed. Check the disk of its folder."),
    ],
)
def test_on_a_disk_that_is_full_or_fails_the_history_is_kept_in_memory(
    code: int, free: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    connect = sqlite3.connect

    def fails(where: Path | str, **rest: bool) -> sqlite3.Connection:
        if where == ":memory:":
            return connect(where, **rest)
        error = sqlite3.OperationalError("it failed")
        error.sqlite_errorcode = code
        raise error

    monkeypatch.setattr(sqlite3, "connect", fails)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=free))
    (tmp_path / "history.sqlite").write_bytes(b"what was there")
    store = Store(tmp_path / "history.sqlite")
    fill(store, CHAT, T0, T0 + 600, 1.0)
    assert store.counts(CHAT, T0, T0 + 600, 600).arrivals.tolist() == [40]
    assert said in caplog.text
    assert "kept in memory, 67108864 bytes of it" in caplog.text
    assert (tmp_path / "history.sqlite").read_bytes() == b"what was there"
    store.close()


def test_what_a_full_disk_did_not_take_is_no_service_that_is_known(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    store, disk = Store(path), sqlite3.connect(path)
    disk.execute("CREATE TRIGGER no_room BEFORE INSERT ON counts BEGIN SELECT RAISE(ABORT, 'disk is full'); END")
    with pytest.raises(sqlite3.Error, match="disk is full"):
        store.add({CHAT: (1.0, 1.0, 1.0, 1.0)}, 600, T0 + 600)
    disk.execute("DROP TRIGGER no_room")
    disk.close()
    store.add({OTHER: (5.0, 5.0, 5.0, 5.0)}, 600, T0 + 600)
    store.add({CHAT: (7.0, 7.0, 7.0, 7.0)}, 600, T0 + 600)
    store.close()
    again = Store(path)
    found = [again.counts(one, T0, T0 + 600, 600).arrivals.tolist() for one in (CHAT, OTHER)]
    assert found == [[7.0], [5.0]]
    again.close()


def test_old_counts_go_and_fine_ones_sooner() -> None:
    store = Store(None, Limits(retention_s=10 * DAY_S))
    for day in range(12):
        fill(store, CHAT, T0 + day * DAY_S, T0 + day * DAY_S + 600, 1.0, period_s=60)
    now_s = T0 + 12 * DAY_S
    store.prune(now_s)
    coarse = store.counts(CHAT, T0, now_s, 600).arrivals
    assert np.count_nonzero(~np.isnan(coarse)) == 10
    fine = store.counts(CHAT, T0, now_s, 60).arrivals
    assert np.count_nonzero(~np.isnan(fine)) == 20


def test_a_file_that_grew_too_large_loses_its_oldest(tmp_path: Path) -> None:
    limits = Limits(max_bytes=400_000)
    store = Store(tmp_path / "history.sqlite", limits)
    services = {ServiceId("demo", f"s{number}"): (1.0, 1.0, 1.0, 1.0) for number in range(100)}
    for step in range(200):
        store.add(services, 600, T0 + (step + 1) * 600)
    assert store.used_bytes > limits.max_bytes
    store.prune(T0 + 200 * 600)
    assert store.used_bytes <= limits.max_bytes
    newest = store.counts(ServiceId("demo", "s7"), T0 + 199 * 600, T0 + 200 * 600, 600)
    assert newest.arrivals.tolist() == [1.0]
    store.close()
    assert (tmp_path / "history.sqlite").stat().st_size <= 1.2 * limits.max_bytes


def test_decisions_go_before_what_forecasts_are_made_of() -> None:
    store = Store(None, Limits(max_bytes=400_000))
    store.add({CHAT: (1.0, 1.0, 1.0, 1.0)}, 600, T0 + 600)
    noise = np.random.default_rng(0)
    store.add_decisions([(CHAT, T0 + 60.0 * number, noise.bytes(2000).hex()) for number in range(400)])
    store.prune(T0 + 24_000)
    assert store.used_bytes <= 400_000
    assert store.counts(CHAT, T0, T0 + 600, 600).arrivals.tolist() == [1.0]
    assert store.decisions(CHAT, T0, 1) != []


def test_decisions_of_a_clock_that_was_ahead_do_not_cost_the_counts() -> None:
    store = Store(None, Limits(max_bytes=400_000))
    store.add({CHAT: (1.0, 1.0, 1.0, 1.0)}, 600, T0 + 600)
    noise = np.random.default_rng(0)
    store.add_decisions([(CHAT, T0 + 1e6 + number, noise.bytes(2000).hex()) for number in range(400)])
    store.prune(T0 + 600)
    assert store.counts(CHAT, T0, T0 + 600, 600).arrivals.tolist() == [1.0]
    assert store.used_bytes <= 400_000


def test_what_is_not_pruned_does_not_cost_all_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    store, noise = Store(None, Limits(max_bytes=2**20)), np.random.default_rng(0)
    fill(store, CHAT, T0, T0 + 600, 1.0, period_s=60)
    store.add_cold_start("p", 10.0, T0 - DAY_S)
    store.set_alerts("demo/policy", 1, [("incident", str(at), noise.bytes(500).hex()) for at in range(1100)], [])
    assert store.used_bytes > 2**20
    store.prune(T0 + 600)
    assert store.counts(CHAT, T0, T0 + 600, 60).arrivals.tolist() == [1.0] * 10
    assert store.cold_starts() == {"p": [10.0]}
    assert "most is what is not pruned: alerts" in caplog.text
    assert "goes back" not in caplog.text


def test_beside_much_that_is_not_pruned_the_rest_is_bounded() -> None:
    store, noise = Store(None, Limits(max_bytes=400_000)), np.random.default_rng(0)
    store.set_alerts("demo/policy", 1, [("incident", str(at), noise.bytes(400).hex()) for at in range(500)], [])
    fixed = store.used_bytes
    for step in range(100):
        store.add({ServiceId("demo", f"s{at}"): (1.0, 1.0, 1.0, 1.0) for at in range(50)}, 600, T0 + (step + 1) * 600)
    store.prune(T0 + 100 * 600)
    assert 20_000 < store.used_bytes - fixed < 150_000


def test_services_of_which_nothing_is_known_any_more_go() -> None:
    store = Store(None, Limits(retention_s=DAY_S))
    fill(store, CHAT, T0, T0 + 600, 1.0)
    store.add_decisions([(OTHER, T0 + DAY_S, "{}")])
    store.prune(T0 + 1.5 * DAY_S)
    assert store._db.execute("SELECT name FROM services").fetchall() == [("other",)]
    fill(store, CHAT, T0 + 2 * DAY_S, T0 + 2 * DAY_S + 600, 1.0)
    assert store.counts(CHAT, T0 + 2 * DAY_S, T0 + 2 * DAY_S + 600, 600).arrivals.tolist() == [40]
    assert store.decisions(OTHER, T0, 1) == ["{}"]


def test_a_line_of_an_earlier_release_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    store = Store(path)
    store.add_decisions([(CHAT, T0, "new")])
    store.close()
    with sqlite3.connect(path) as raw:
        raw.execute("INSERT INTO decisions SELECT NULL, service, at_s, 'old' FROM decisions")
    assert Store(path).decisions(CHAT, T0, 2) == ["new", "old"]


def test_cold_starts_and_decisions_are_kept_up_to_a_number() -> None:
    store = Store(None)
    for number in range(COLD_STARTS_KEPT + 5):
        store.add_cold_start("p", float(number), T0 + number)
    assert store.cold_starts()["p"] == [float(number) for number in range(5, COLD_STARTS_KEPT + 5)]
    store.add_decisions([(CHAT, T0 + number, str(number)) for number in range(DECISIONS_KEPT + 3)])
    store.add_decisions([(OTHER, T0, "other")])
    assert len(store.decisions(CHAT, 0, 10_000)) == DECISIONS_KEPT
    assert store.decisions(CHAT, 0, 2) == [str(DECISIONS_KEPT + 1), str(DECISIONS_KEPT + 2)]
    assert store.decisions(OTHER, T0, 10) == ["other"]
    assert store.decisions(OTHER, T0 + 1, 10) == []


# --- joining ----------------------------------------------------------------------------------------------------------


def counted(start_s: float, *values: float) -> Counts:
    column = np.array(values, dtype=np.float64)
    return Counts(start_s, 600, column, column, column, column)


def test_newer_steps_replace_and_extend_what_was_known() -> None:
    both = joined(counted(0, 1, 2, 3), counted(1200, 30, 40), 600)
    assert (both.start_s, both.arrivals.tolist()) == (600, [2, 30, 40])


def test_what_is_known_is_no_gap_in_a_newer_answer() -> None:
    nan = float("nan")
    both = joined(counted(0, 1, 2, nan), counted(600, nan, 30, nan), 0)
    np.testing.assert_array_equal(both.arrivals, [1, 2, 30, nan])
    assert both.first_gap_s == 1800
    assert counted(0, 1, 2).first_gap_s is None


def test_what_does_not_touch_is_not_joined() -> None:
    new = counted(6000, 1)
    assert joined(counted(0, 1), new, 0) is new
    assert joined(None, new, 0) is new
    assert len(empty(0, 1200, 600).arrivals) == 2


# --- the scraper ------------------------------------------------------------------------------------------------------


class Gateways:
    """Two gateways that count; one of them may be silent."""

    def __init__(self) -> None:
        self.count = {"g1": 0, "g2": 0}
        self.silent: set[str] = set()

    def addresses(self) -> frozenset[str]:
        return frozenset(self.count)

    async def metrics(self, gateway: str) -> str | None:
        labels = '{namespace="demo",service="chat"}'
        value = self.count[gateway]
        names = (contract.METRIC_GATEWAY_ARRIVALS, contract.METRIC_GATEWAY_OUTPUT_TOKENS)
        return None if gateway in self.silent else "\n".join(f"{name}{labels} {value}" for name in names)

    async def close(self) -> None:
        return None


class Clock:
    def __init__(self) -> None:
        self.now_s = T0

    def __call__(self) -> float:
        return self.now_s


async def test_rounds_of_the_scraper_become_counts_and_a_silent_gateways_are_late() -> None:
    gateways, clock, store = Gateways(), Clock(), StoreThread(Store(None))
    scraper = Scraper(gateways, store, 15.0, clock=clock)
    await scraper.round()
    for number in range(40):
        clock.now_s += 15
        gateways.count = {name: value + 1 for name, value in gateways.count.items()}
        gateways.silent = {"g2"} if number == 7 else set()
        await scraper.round()
    got = await store.read(CHAT, T0, T0 + 600, 600)
    assert got.arrivals.tolist() == [80]
    assert got.output_tokens.tolist() == [80]
    await store.close()


async def test_a_clock_that_is_set_back_does_not_end_the_pruning(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, thread = Clock(), StoreThread(Store(None))
    pruned: list[float] = []
    monkeypatch.setattr(Store, "prune", lambda _, now_s: pruned.append(now_s))
    scraper = Scraper(Gateways(), thread, 15.0, clock=clock)
    await scraper.round()
    clock.now_s -= DAY_S
    await scraper.round()
    clock.now_s += 15
    await scraper.round()
    assert pruned == [T0, T0 - DAY_S]
    await thread.close()


async def test_a_disk_that_takes_nothing_is_pruned_all_the_same(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateways, clock, thread = Gateways(), Clock(), StoreThread(Store(None))
    did: list[str] = []

    def refuses(what: str) -> None:
        did.append(what)
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Store, "add", lambda *_: refuses("add"))
    monkeypatch.setattr(Store, "prune", lambda *_: refuses("prune"))
    scraper = Scraper(gateways, thread, 15.0, clock=clock)
    await scraper.round()
    for _ in range(41):
        clock.now_s += 15
        gateways.count = {name: value + 1 for name, value in gateways.count.items()}
        with pytest.raises(sqlite3.OperationalError):
            await scraper.round()
    assert did == ["prune"] + 39 * ["add"] + ["prune"] + 2 * ["add"]
    assert "The history was not pruned: database or disk is full." in caplog.text
    await thread.close()


async def test_a_disk_that_refuses_does_not_end_the_scraper(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateways, clock, thread = Gateways(), Clock(), StoreThread(Store(None))
    written: list[Mapping[ServiceId, Row]] = []

    def refuses(_: Store, rows: Mapping[ServiceId, Row], seconds: float, at_s: float) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    def takes(_: Store, rows: Mapping[ServiceId, Row], seconds: float, at_s: float) -> None:
        written.append(rows)

    monkeypatch.setattr(Store, "add", refuses)

    def ticking() -> float:
        clock.now_s += 0.01
        return clock.now_s

    task = asyncio.ensure_future(Scraper(gateways, thread, 0.01, clock=ticking).run())
    await eventually(lambda: "disk is full" in caplog.text, "the refusal is logged", 20)
    monkeypatch.setattr(Store, "add", takes)
    await eventually(lambda: written, "the scraper writes again", 20)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await thread.close()
