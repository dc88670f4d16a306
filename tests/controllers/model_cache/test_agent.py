"""The agent as a whole: real files, a real web server, a fake API server, and restarts at any point."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import random
import shutil
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from controllers.guard import AddressGuard
from controllers.model_cache import formats
from controllers.model_cache.agent import Agent
from controllers.model_cache.errors import WrongContent
from controllers.model_cache.job import LEAST_OVER_S
from controllers.model_cache.report import Reporter
from controllers.model_cache.sources import Access
from controllers.model_cache.store import RECORD, Store
from controllers.model_cache.views import Views
from controllers.plans.model_cache import ModelRef
from crds.model import ModelFormat
from kube.resources import MODELS, NODES, PODS, Object
from tests.controllers.model_cache.files import WebServer, gguf, serving, sha256
from tests.fakes import FakeClient
from tests.waiting import eventually

LOOPBACK = AddressGuard([ipaddress.ip_network("127.0.0.1/32")])
SIZE = 300_000


@dataclass
class Node:
    """One node: its disk, its API server, and agents that come and go."""

    root: Path
    api: FakeClient = field(default_factory=FakeClient)
    cache_bytes: int = 10**9
    file_roots: tuple[Path, ...] = ()
    later_s: float = 0.0
    """How far the agent's clock is ahead."""

    def __post_init__(self) -> None:
        self.api.put(NODES, {"metadata": {"name": "node-1", "labels": {"disk": "ssd"}}})

    def model(self, name: str, source: str, **spec: Any) -> None:
        self.api.put(MODELS, {"metadata": {"namespace": "demo", "name": name}, "spec": {"source": source, **spec}})

    def pod(self, name: str, model: str, phase: str = "Running") -> None:
        self.api.put(
            PODS,
            {
                "metadata": {"namespace": "demo", "name": name, "labels": {"foretide.dev/inference-service": "chat"}},
                "spec": {
                    "nodeName": "node-1",
                    "volumes": [{"name": "model", "persistentVolumeClaim": {"claimName": f"{model}-model"}}],
                },
                "status": {"phase": phase},
            },
        )

    def entry(self, name: str) -> Object:
        found = self.api.now(MODELS, "demo", name) or {}
        nodes = (found.get("status") or {}).get("nodes") or [{}]
        entry: Object = nodes[0]
        return entry

    def state(self, name: str) -> str | None:
        return self.entry(name).get("state")

    def copy(self, name: str) -> Path:
        return self.root / "demo" / name

    @asynccontextmanager
    async def agent(self) -> AsyncIterator[Agent]:
        views = Views.following(self.api, "node-1")
        agent = Agent(
            views,
            Store(self.root),
            Reporter(self.api, views, time.monotonic),
            Access(LOOPBACK, self.file_roots),
            self.cache_bytes,
            lambda: time.monotonic() + self.later_s,
            time.time,
            random.Random(1),
        )
        tasks = [asyncio.create_task(one.run()) for one in views.informers().values()]
        tasks.append(asyncio.create_task(agent.run()))
        try:
            yield agent
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert [one for one in results if not isinstance(one, asyncio.CancelledError)] == []

    async def settles(self, name: str, state: str) -> None:
        await eventually(lambda: self.state(name) == state, f"{name} is {state}; now {self.entry(name)}")


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    disk_has(monkeypatch, total=10**12, free=10**12)
    return Node(tmp_path / "root")


def disk_has(monkeypatch: pytest.MonkeyPatch, *, total: int, free: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=total, free=free))


async def test_a_model_is_fetched_verified_and_published_readable_for_all(node: Node) -> None:
    content = gguf()
    async with serving(WebServer(content)) as server, node.agent():
        node.model("m", f"{server.url}/m.gguf", digest=sha256(content))
        await node.settles("m", "Cached")
    assert node.entry("m") == {
        "name": "node-1",
        "state": "Cached",
        "bytes": SIZE,
        "totalBytes": SIZE,
        "digest": sha256(content),
        "format": "gguf",
    }
    assert (node.copy("m") / "m.gguf").read_bytes() == content
    assert (node.copy("m") / "m.gguf").stat().st_mode & 0o777 == 0o444
    assert node.copy("m").stat().st_mode & 0o777 == 0o755
    assert sorted(path.name for path in node.copy("m").iterdir()) == [RECORD, "m.gguf"]


@pytest.mark.parametrize("has_folder", [False, True])
async def test_a_node_without_the_file_says_so_and_keeps_the_copies_of_other_models(
    node: Node, tmp_path: Path, has_folder: bool
) -> None:
    files = tmp_path / "files"
    if has_folder:
        files.mkdir()
    node.file_roots = (files,)
    async with serving(WebServer(gguf())) as server, node.agent():
        node.model("here", f"{server.url}/m.gguf")
        node.model("missing", f"file://{files}/m.gguf")
        await node.settles("here", "Cached")
        await node.settles("missing", "Failed")
    assert node.entry("missing")["message"].startswith(f"'{files}/m.gguf' does not exist on this node.")


async def test_the_folder_appears_only_when_the_copy_is_whole(node: Node) -> None:
    server = WebServer(gguf(), hold=asyncio.Event())
    async with serving(server), node.agent():
        node.model("m", f"{server.url}/m.gguf")
        await node.settles("m", "Downloading")
        await eventually(lambda: node.entry("m").get("bytes") == SIZE // 2, "half of it is reported")
        assert not node.copy("m").exists()
        assert server.hold is not None
        server.hold.set()
        await node.settles("m", "Cached")


async def test_an_idle_agent_and_a_restarted_one_write_nothing(node: Node) -> None:
    async with serving(WebServer(gguf())) as server:
        async with node.agent() as agent:
            node.model("m", f"{server.url}/m.gguf")
            await node.settles("m", "Cached")
            writes, steps = node.api.writes, agent.counts.steps
            node.pod("p", "other")
            await eventually(lambda: agent.counts.steps > steps, "the agent looked again")
            assert node.api.writes == writes
        asked = len(server.ranges)
        async with node.agent() as agent:
            await eventually(lambda: agent.counts.steps > 0, "the agent looked once")
            node.pod("q", "other")
            await eventually(lambda: agent.counts.steps > 1, "the agent looked again")
            assert (node.api.writes, len(server.ranges)) == (writes, asked)


async def test_a_download_is_continued_after_the_agent_was_ended_in_the_middle(node: Node) -> None:
    content = gguf()
    server = WebServer(content, hold=asyncio.Event())
    async with serving(server):
        async with node.agent():
            node.model("m", f"{server.url}/m.gguf", digest=sha256(content))
            await eventually(lambda: node.entry("m").get("bytes", 0) > 0, "bytes have come")
        assert server.hold is not None
        server.hold.set()
        have = (node.root / ".partial/demo/m/m.gguf").stat().st_size
        assert 0 < have < SIZE
        async with node.agent():
            await node.settles("m", "Cached")
        assert server.ranges[-1] == f"bytes={have}-"
    assert (node.copy("m") / "m.gguf").read_bytes() == content


async def test_a_connection_that_is_cut_again_and_again_gets_there_by_ranges(node: Node) -> None:
    content = gguf()
    async with serving(WebServer(content, cut_after_bytes=[120_000, 90_000])) as server, node.agent():
        node.model("m", f"{server.url}/m.gguf", digest=sha256(content))
        await node.settles("m", "Cached")
        assert len([one for one in server.ranges if one not in (None, "bytes=0-0")]) == 2


async def test_a_wrong_digest_deletes_the_bytes_and_says_expected_and_found(node: Node) -> None:
    wrong = "sha256:" + "0" * 64
    async with serving(WebServer(gguf())) as server, node.agent() as agent:
        node.model("m", f"{server.url}/m.gguf", digest=wrong)
        await node.settles("m", "Failed")
        asked = len(server.ranges)
        message = node.entry("m")["message"]
        assert f"The weights have digest {sha256(gguf())}, spec.digest has {wrong}; they were deleted." in message
        await eventually(lambda: not (node.root / ".partial/demo/m").exists(), "the bytes are deleted")
        for name in "pq":  # When the second look begins, the first has ended.
            steps = agent.counts.steps
            node.pod(name, "other")
            await eventually(lambda: agent.counts.steps > steps, "the agent looked again")  # noqa: B023
        assert (len(server.ranges), agent.fetching()) == (asked, 0)
    assert WrongContent.patience_s >= 60


async def test_weights_of_a_wrong_digest_are_fetched_twice_and_then_only_when_the_source_has_others(node: Node) -> None:
    async with serving(WebServer(gguf(seed=1))) as server, node.agent() as agent:
        node.model("m", f"{server.url}/m.gguf", digest=sha256(gguf(seed=2)))
        await node.settles("m", "Failed")
        for tries in (2, 3):
            node.later_s += 2 * WrongContent.most_s
            node.pod("p", f"other-{tries}")
            await eventually(lambda: agent.counts.failed == tries, "it was tried again")  # noqa: B023
        assert server.ranges == ["bytes=0-0", None, "bytes=0-0", None, "bytes=0-0"]
        assert f"The weights have digest {sha256(gguf(seed=1))}" in node.entry("m")["message"]
        server.content, server.etag = gguf(seed=2), '"v2"'
        node.later_s += 2 * WrongContent.most_s
        node.pod("q", "other")
        await node.settles("m", "Cached")


async def test_a_file_that_is_no_model_is_refused(node: Node) -> None:
    async with serving(WebServer(b"<html>" * 1000)) as server, node.agent():
        node.model("m", f"{server.url}/m.gguf")
        await node.settles("m", "Failed")
        assert "neither GGUF nor safetensors" in node.entry("m")["message"]
    assert not node.copy("m").exists()


async def test_weights_are_checked_one_after_the_other(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    check, at_once, most = formats.check, 0, 0
    second_waits = threading.Event()

    def counted(*args: Any) -> ModelFormat:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        second_waits.wait(10)
        at_once -= 1
        return check(*args)

    monkeypatch.setattr(formats, "check", counted)
    async with serving(WebServer(gguf())) as server, node.agent():
        for name in ("a", "b"):
            node.model(name, f"{server.url}/m.gguf")
        for name in ("a", "b"):
            await node.settles(name, "Verifying")
        second_waits.set()
        for name in ("a", "b"):
            await node.settles(name, "Cached")
    assert most == 1


async def test_the_first_copys_digest_is_the_measure_for_all_nodes(node: Node) -> None:
    async with serving(WebServer(gguf())) as server, node.agent():
        status = {"digest": "sha256:" + "a" * 64}
        spec = {"source": f"{server.url}/m.gguf"}
        node.api.put(MODELS, {"metadata": {"namespace": "demo", "name": "m"}, "spec": spec, "status": status})
        await node.settles("m", "Failed")
        assert "the first node's copy has sha256:aaaa" in node.entry("m")["message"]


async def test_a_deleted_model_takes_its_copy_with_it_once_no_pod_uses_it(node: Node) -> None:
    async with serving(WebServer(gguf())) as server, node.agent() as agent:
        node.model("m", f"{server.url}/m.gguf")
        await node.settles("m", "Cached")
        node.pod("p", "m")
        node.api.remove(MODELS, "demo", "m")
        steps = agent.counts.steps
        node.pod("q", "other")
        await eventually(lambda: agent.counts.steps > steps, "the agent looked again")
        assert node.copy("m").exists()
        node.pod("p", "m", phase="Succeeded")
        await eventually(lambda: not node.copy("m").exists(), "the copy is gone")
    Store(node.root).open()
    assert not (node.root / "demo").exists()


async def test_a_copy_that_is_published_while_its_model_is_deleted_goes_with_it(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish, under_way, may_end, done = Store.publish, threading.Event(), threading.Event(), threading.Event()

    def slow(*args: Any) -> None:
        under_way.set()
        may_end.wait(30)
        publish(*args)
        done.set()

    monkeypatch.setattr(Store, "publish", slow)
    async with serving(WebServer(gguf())) as server, node.agent() as agent:
        node.model("m", f"{server.url}/m.gguf")
        await eventually(under_way.is_set, "it is being published")
        (_, fetch), *_ = agent._jobs.values()
        node.api.remove(MODELS, "demo", "m")
        await eventually(fetch.cancelling, "the fetch is to end")
        may_end.set()
        await eventually(lambda: fetch.done() and done.is_set() and not node.copy("m").exists(), "the copy is gone")
        assert agent.held() == {}


async def test_a_model_being_deleted_loses_its_entry(node: Node) -> None:
    async with serving(WebServer(gguf())) as server, node.agent():
        node.model("m", f"{server.url}/m.gguf")
        await node.settles("m", "Cached")
        found = node.api.now(MODELS, "demo", "m") or {}
        found["metadata"] |= {"deletionTimestamp": "2030-01-01T00:00:00Z", "finalizers": ["foretide.dev/in-use"]}
        node.api.put(MODELS, found)
        await eventually(lambda: node.entry("m") == {}, "the entry is gone")
        assert not node.copy("m").exists()


async def test_a_node_that_the_selector_does_not_admit_keeps_no_copy(node: Node) -> None:
    async with serving(WebServer(gguf())) as server, node.agent():
        node.model("elsewhere", f"{server.url}/m.gguf", nodeSelector={"disk": "hdd"})
        node.model("here", f"{server.url}/m.gguf", nodeSelector={"disk": "ssd"})
        node.model("claim", "pvc://weights/m.gguf")
        await node.settles("here", "Cached")
        assert (node.entry("elsewhere"), node.entry("claim")) == ({}, {})
        node.api.put(NODES, {"metadata": {"name": "node-1", "labels": {"disk": "hdd"}}})
        await node.settles("elsewhere", "Cached")
        await eventually(lambda: not node.copy("here").exists(), "the copy is gone")
        await eventually(lambda: node.entry("here") == {}, "the entry is gone")


async def test_a_node_whose_object_is_gone_for_a_moment_keeps_its_copies(node: Node) -> None:
    async with serving(WebServer(gguf())) as server, node.agent() as agent:
        node.model("m", f"{server.url}/m.gguf")
        await node.settles("m", "Cached")
        steps = agent.counts.steps
        node.api.remove(NODES, None, "node-1")
        await eventually(lambda: agent.counts.steps > steps, "the agent looked")
        node.api.put(NODES, {"metadata": {"name": "node-1", "labels": {"disk": "ssd"}}})
        await eventually(lambda: agent.counts.steps > steps + 1, "the agent looked again")
        assert (agent.counts.finished, node.state("m")) == (1, "Cached")
        assert node.copy("m").exists()


async def test_the_copy_of_a_model_that_this_release_cannot_read_is_left_as_it_is(node: Node) -> None:
    """Of a newer release's rules while the agents are replaced, or after a rollback."""
    async with serving(WebServer(gguf())) as server, node.agent() as agent:
        node.model("m", f"{server.url}/m.gguf")
        await node.settles("m", "Cached")
        steps = agent.counts.steps
        node.api.put(MODELS, (node.api.now(MODELS, "demo", "m") or {}) | {"spec": {"source": "x", "newer": True}})
        await eventually(lambda: agent.counts.steps > steps, "the agent looked")
        node.model("n", f"{server.url}/m.gguf")
        await node.settles("n", "Cached")
        assert node.state("m") == "Cached"
        assert node.copy("m").exists()


async def test_a_new_model_evicts_the_least_recently_used_and_it_comes_back_for_a_pod(node: Node) -> None:
    node.cache_bytes = int(SIZE * 2.5)
    async with serving(WebServer(gguf())) as server, node.agent():
        for name in ("a", "b"):
            node.model(name, f"{server.url}/m.gguf")
            await node.settles(name, "Cached")
        Store(node.root).touch(ModelRef("demo", "a"), time.time() + 10)
        node.model("c", f"{server.url}/m.gguf")
        await node.settles("c", "Cached")
        await node.settles("b", "Evicted")
        assert node.state("a") == "Cached"
        assert not node.copy("b").exists()
        node.pod("p", "c")
        node.pod("q", "b", phase="Pending")
        await node.settles("b", "Cached")
        await node.settles("a", "Evicted")
        assert node.state("c") == "Cached"


async def test_copies_in_use_leave_no_room_and_the_new_model_says_so_with_sizes(node: Node) -> None:
    node.cache_bytes = int(SIZE * 1.5)
    async with serving(WebServer(gguf())) as server, node.agent():
        node.model("busy", f"{server.url}/m.gguf")
        node.pod("p", "busy")
        await node.settles("busy", "Cached")
        node.model("late", f"{server.url}/m.gguf")
        await node.settles("late", "Failed")
        assert node.entry("late")["message"].startswith(
            "Model 'demo/late' needs 300 kB; 150 kB of the cache's 450 kB are free, and workers on this node use"
            " demo/busy."
        )
        assert node.state("busy") == "Cached"
        node.api.remove(PODS, "demo", "p")
        await node.settles("late", "Cached")
        await node.settles("busy", "Evicted")


@pytest.mark.parametrize("used", [True, False])
async def test_a_copy_that_somebody_deleted_is_fetched_again(node: Node, used: bool) -> None:
    async with serving(WebServer(gguf())) as server, node.agent() as agent:
        node.model("m", f"{server.url}/m.gguf")
        await node.settles("m", "Cached")
        shutil.rmtree(node.copy("m"))
        node.pod("p", "m" if used else "other")
        await eventually(lambda: agent.counts.finished == 2, "it was fetched a second time")
        assert (node.copy("m") / "m.gguf").stat().st_size == SIZE
        await node.settles("m", "Cached")


def fill_disk(monkeypatch: pytest.MonkeyPatch, is_full: Callable[[Path], bool]) -> None:
    """For small files that `is_full` names."""
    write_text = Path.write_text

    def on_a_full_disk(path: Path, *args: Any, **kwargs: Any) -> int:
        if is_full(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_text(path, *args, **kwargs)

    monkeypatch.setattr(Path, "write_text", on_a_full_disk)


async def test_a_disk_without_room_for_a_note_of_it_does_not_keep_a_copy_from_making_room(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_disk(monkeypatch, lambda path: ".evicted" in path.parts and node.copy("a").exists())
    node.cache_bytes = int(SIZE * 1.5)
    async with serving(WebServer(gguf())) as server, node.agent():
        for name in ("a", "b"):
            node.model(name, f"{server.url}/m.gguf")
            await node.settles(name, "Cached")
        await node.settles("a", "Evicted")


async def test_a_disk_that_is_full_at_the_last_step_is_told_as_that(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_disk(monkeypatch, lambda path: path.name == RECORD)
    async with serving(WebServer(gguf())) as server, node.agent():
        node.model("m", f"{server.url}/m.gguf")
        await node.settles("m", "Failed")
        assert node.entry("m")["message"].startswith("The disk of this node is full")


async def test_an_evicted_model_stays_away_after_a_restart(node: Node) -> None:
    node.cache_bytes = int(SIZE * 1.5)
    async with serving(WebServer(gguf())) as server:
        async with node.agent():
            for name in ("a", "b"):
                node.model(name, f"{server.url}/m.gguf")
                await node.settles(name, "Cached")
            await node.settles("a", "Evicted")
        asked = len(server.ranges)
        async with node.agent() as agent:
            await eventually(lambda: agent.counts.steps > 0, "the agent looked once")
            node.pod("q", "other")
            await eventually(lambda: agent.counts.steps > 1, "the agent looked again")
            assert (node.state("a"), node.state("b")) == ("Evicted", "Cached")
            assert len(server.ranges) == asked


async def test_a_new_model_takes_nothing_from_an_evicted_one_that_is_coming_back(node: Node) -> None:
    Store(node.root).open()
    Store(node.root).evict(ModelRef("demo", "a"), SIZE)
    held, silent = WebServer(gguf(), hold=asyncio.Event()), asyncio.Event()

    class Silent(WebServer):
        async def answer(self, request: web.Request) -> web.StreamResponse:
            await silent.wait()
            return await super().answer(request)

    async with serving(held), serving(Silent(gguf())) as server, node.agent() as agent:
        node.model("a", f"{held.url}/m.gguf")
        await eventually(lambda: node.entry("a").get("bytes") == SIZE // 2, "half of it is back")
        steps = agent.counts.steps
        node.model("new", f"{server.url}/m.gguf")
        await eventually(lambda: agent.counts.steps > steps + 1, "the agent looked")
        assert (node.state("a"), node.entry("a").get("bytes")) == ("Downloading", SIZE // 2)
        silent.set()
        assert held.hold is not None
        held.hold.set()
        for name in ("a", "new"):
            await node.settles(name, "Cached")
        assert held.ranges == ["bytes=0-0", None]


async def test_what_a_crash_left_behind_is_cleaned_at_the_next_start(node: Node) -> None:
    half = node.copy("half")
    half.mkdir(parents=True)
    (half / "m.gguf").write_bytes(b"GGUF")
    (node.root / ".trash" / "old").mkdir(parents=True)
    (node.root / ".partial" / "demo" / "unwanted").mkdir(parents=True)
    async with serving(WebServer(gguf())) as server, node.agent():
        node.model("half", f"{server.url}/m.gguf")
        await node.settles("half", "Cached")
    assert (half / "m.gguf").stat().st_size == SIZE
    assert list((node.root / ".trash").iterdir()) == []
    assert [path for path in (node.root / ".partial").rglob("*") if path.name != "demo"] == []


async def test_no_more_than_two_downloads_run_at_once(node: Node) -> None:
    server = WebServer(gguf(), hold=asyncio.Event())
    async with serving(server), node.agent():
        for name in "abcd":
            node.model(name, f"{server.url}/m.gguf")
        both_asked_twice = 4
        await eventually(lambda: len(server.ranges) == both_asked_twice, "two download")
        await eventually(
            lambda: sorted(node.state(name) for name in "abcd") == ["Downloading"] * 2 + ["Pending"] * 2, "two wait"
        )
        assert len(server.ranges) == both_asked_twice
        assert server.hold is not None
        server.hold.set()
        for name in "abcd":
            await node.settles(name, "Cached")


async def test_what_a_pod_waits_for_is_not_behind_what_nobody_waits_for(node: Node) -> None:
    held = WebServer(gguf(), hold=asyncio.Event())
    async with serving(held), serving(WebServer(gguf())) as server, node.agent():
        for name in ("a", "b"):
            node.model(name, f"{held.url}/m.gguf")
        for name in ("a", "b"):
            await node.settles(name, "Downloading")
        node.model("y", f"{server.url}/m.gguf")
        node.model("z", f"{server.url}/m.gguf")
        node.pod("p", "z")
        await node.settles("z", "Cached")
        assert node.state("y") == "Pending"


async def test_sources_that_give_next_to_nothing_do_not_keep_others_from_coming(node: Node) -> None:
    slow, halves = WebServer(gguf(), hold=asyncio.Event()), {"a": SIZE // 2, "b": SIZE // 2}
    async with serving(slow), serving(WebServer(gguf())) as server, node.agent() as agent:
        for name in halves:
            node.model(name, f"{slow.url}/m.gguf")
        await eventually(lambda: {name: node.entry(name).get("bytes") for name in halves} == halves, "halves are here")
        node.model("quick", f"{server.url}/m.gguf")
        steps = agent.counts.steps
        await eventually(lambda: agent.counts.steps > steps, "the agent has looked at their pace")
        node.later_s = LEAST_OVER_S
        await node.settles("quick", "Cached")
        for name in halves:
            await node.settles(name, "Failed")
            assert "less than 16 kB/s over 5 minutes" in node.entry(name)["message"]
            assert (node.root / ".partial/demo" / name / "m.gguf").stat().st_size == SIZE // 2


async def test_a_recreated_model_with_another_source_gets_other_weights(node: Node) -> None:
    async with serving(WebServer(gguf(seed=1))) as one, serving(WebServer(gguf(seed=2))) as two, node.agent():
        node.model("m", f"{one.url}/m.gguf")
        await node.settles("m", "Cached")
        node.api.remove(MODELS, "demo", "m")
        node.model("m", f"{two.url}/m.gguf")
        await eventually(lambda: node.entry("m").get("digest") == sha256(gguf(seed=2)), "the other weights are here")


async def test_a_full_disk_is_a_failed_entry_with_sizes(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    disk_has(monkeypatch, total=100 << 20, free=(64 << 20) + 100_000)
    async with serving(WebServer(gguf())) as server, node.agent():
        node.model("m", f"{server.url}/m.gguf")
        await node.settles("m", "Failed")
        assert "has 300 kB; the whole cache of this node may have 100 kB" in node.entry("m")["message"]


async def test_unused_copies_go_before_the_kubelet_evicts_pods_and_stay_while_it_clears_images(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(WebServer(gguf())) as server, node.agent() as agent:
        for name in ("busy", "idle"):
            node.model(name, f"{server.url}/m.gguf")
        node.pod("p", "busy")
        for name in ("busy", "idle"):
            await node.settles(name, "Cached")
        disk_has(monkeypatch, total=10**12, free=17 * 10**10)
        node.model("among-images", f"{server.url}/m.gguf")
        await node.settles("among-images", "Cached")
        assert (node.state("idle"), agent.counts.evicted) == ("Cached", 0)
        node.api.remove(MODELS, "demo", "among-images")
        await eventually(lambda: not node.copy("among-images").exists(), "its copy is gone")
        disk_has(monkeypatch, total=10**12, free=16 * 10**10 - SIZE)
        node.pod("q", "other")
        await node.settles("idle", "Evicted")
        node.model("new", f"{server.url}/m.gguf")
        await node.settles("new", "Failed")
        assert "(its disk keeps 160 GB free)" in node.entry("new")["message"]
        assert node.state("busy") == "Cached"
        disk_has(monkeypatch, total=10**12, free=3 * 10**11)
        node.pod("q", "another")
        await node.settles("new", "Cached")
        assert agent.counts.evicted == 1


class Endless(WebServer):
    """Tells no size and does not end."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        with suppress(ConnectionError):
            while True:
                await response.write(b"GGUF" * 10_000)
        return response


async def test_what_a_download_of_unknown_size_has_filled_is_given_back_when_it_fails(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    def room_bytes(store: Store) -> int:
        return 2 * SIZE - sum(store.partials().values()) - node.copy("small").exists() * SIZE

    monkeypatch.setattr(Store, "disk_room_bytes", room_bytes)
    async with serving(Endless()) as endless, serving(WebServer(gguf())) as server, node.agent():
        node.model("endless", f"{endless.url}/m.gguf")
        await node.settles("endless", "Failed")
        assert "no room on this node after" in node.entry("endless")["message"]
        node.model("small", f"{server.url}/m.gguf")
        await node.settles("small", "Cached")


async def test_what_is_left_of_a_failed_download_is_no_room_for_another(node: Node) -> None:
    node.cache_bytes = int(1.5 * SIZE)
    left = node.root / ".partial/demo/gone"
    left.mkdir(parents=True)
    (left / "m.gguf").write_bytes(gguf(200_000))
    async with serving(WebServer(status=404)) as gone, serving(WebServer(gguf())) as server:
        node.model("gone", f"{gone.url}/m.gguf")
        async with node.agent() as agent:
            await node.settles("gone", "Failed")
            assert agent._room_bytes() == node.cache_bytes - 200_000
            node.model("other", f"{server.url}/m.gguf")
            node.pod("p", "other")
            await node.settles("other", "Cached")
            await eventually(lambda: not left.exists(), "its bytes are gone")


async def test_a_copy_that_was_published_during_a_walk_of_the_disk_counts_once(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    partials = Store.partials

    def walked_before(store: Store) -> dict[ModelRef, int]:
        return partials(store) | ({ModelRef("demo", "a"): SIZE} if node.copy("a").exists() else {})

    monkeypatch.setattr(Store, "partials", walked_before)
    node.cache_bytes = int(2.5 * SIZE)
    async with serving(WebServer(gguf())) as server, node.agent() as agent:
        node.model("a", f"{server.url}/m.gguf")
        await node.settles("a", "Cached")
        node.model("b", f"{server.url}/m.gguf")
        await eventually(lambda: node.state("b") in ("Cached", "Failed"), "it has come or not")
        assert node.state("b") == "Cached"
        monkeypatch.setattr(Store, "disk_room_bytes", lambda _: 0)
        assert agent._budget().size_bytes == 2 * SIZE


def test_a_look_at_the_disk_meets_files_that_a_finished_download_just_took_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, ref = Store(tmp_path), ModelRef("demo", "m")
    store.open()
    store.evict(ref, 5)
    partial = store.partial_path(ref)
    partial.mkdir(parents=True)
    for name in ("here", "gone"):
        (partial / name).write_bytes(b"12345")
    stat, read_text = Path.stat, Path.read_text

    def without(method: Any) -> Any:
        def called(path: Path, *args: Any, **kwargs: Any) -> Any:
            if path.name in ("gone", "m") and (path.name == "gone" or method is read_text):
                raise FileNotFoundError(path)
            return method(path, *args, **kwargs)

        return called

    monkeypatch.setattr(Path, "stat", without(stat))
    monkeypatch.setattr(Path, "read_text", without(read_text))
    assert store.partial_bytes(ref) == 5
    assert store.evicted() == {}
