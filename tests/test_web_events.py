"""Server-sent events of runs: only what changes, to a bounded crowd, that goes when it likes; by a real server."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="attar[web] is not installed")

import httpx2

from attar.apps.web import events
from attar.apps.web.events import Hub
from attar.apps.web.limits import Refusal
from attar.train.live import Status
from test_web_runs import write_run
from training_kit import start, write_model
from web_browser import serve

Event = tuple[str, Any]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server's address and the folder whose runs it shows."""
    folder = tmp_path_factory.mktemp("runs")
    for address in serve("--runs", str(folder)):
        yield address, folder


class Listener:
    """Reads a stream in a thread of its own."""

    def __init__(self, answer: Any) -> None:
        self.found: list[Event] = []
        self.comments = 0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._read, args=(answer,), daemon=True)
        self.thread.start()

    def _read(self, answer: Any) -> None:
        kind = ""
        try:
            for line in answer.iter_lines():
                if line.startswith("event: "):
                    kind = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    self.found.append((kind, json.loads(line.removeprefix("data: "))))
                elif line.startswith(":"):
                    self.comments += 1
        except (httpx2.TransportError, httpx2.StreamError):
            pass  # the stream was closed from here
        self.ended.set()

    def until(self, condition: Callable[[Event], bool], seconds: float = 20) -> Event:
        """The first event that fits; those up to it are forgotten."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for place, event in enumerate(self.found):
                if condition(event):
                    del self.found[: place + 1]
                    return event
            time.sleep(0.02)
        raise AssertionError(f"no such event within {seconds} s; there were {self.found}")


@contextmanager
def listening(address: str) -> Iterator[Listener]:
    with httpx2.stream("GET", f"{address}api/runs/events", timeout=30) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        yield Listener(answer)


def test_what_changes_is_told_and_nothing_else(served: tuple[str, Path]) -> None:
    address, folder = served
    write_run(folder / "old", 2)
    with listening(address) as listener:
        kind, rows = listener.until(lambda _: True)
        assert (kind, [row["name"] for row in rows]) == ("rows", ["old"])
        assert rows == httpx2.get(f"{address}api/runs").json()
        time.sleep(2.5)
        assert listener.found == []
        run = write_run(folder / "new", 1, Status("training", 1, 3, 15, 30, 0.5, 20.0, 0.9, 2.0, 7.5, None))
        _, row = listener.until(lambda event: event[0] == "row" and event[1]["state"] == "training")
        assert (row["name"], row["step"], row["loss"]) == ("new", 15, 0.5)
        told = Status("finished", 3, 3, 30, 30, None, None, None, None, None, None)
        (run / "progress.json").write_text(told.to_json())
        _, row = listener.until(lambda event: event[0] == "row" and event[1]["state"] == "finished")
        assert row == next(r for r in httpx2.get(f"{address}api/runs").json() if r["name"] == "new")
        shutil.rmtree(run)
        assert listener.until(lambda event: event[0] == "gone")[1] == row["id"]
    shutil.rmtree(folder / "old")


def test_a_run_of_another_process_is_seen_from_beginning_to_end(
    served: tuple[str, Path], tmp_path: Path
) -> None:
    address, folder = served
    model = write_model(tmp_path / "model.json")
    options = ("--limit", 256, "--epochs", 3, "--warmup", 0, "--verbosity", 0, "--json")
    with (
        listening(address) as listener,
        start("train", "--model", model, "-o", folder / "digits", *options) as training,
    ):
        _, begun = listener.until(lambda event: event[0] == "row", seconds=60)
        _, ended = listener.until(lambda e: e[0] == "row" and e[1]["state"] == "finished", seconds=60)
        printed, _ = training.communicate(timeout=60)
    assert begun["state"] == "training"
    assert (ended["name"], ended["epoch"], ended["epochs"], ended["samples"]) == ("digits", 3, 3, [1, 2, 3])
    best = json.loads(printed)
    assert ended["best"] == pytest.approx({key: best[key] for key in ended["best"]}, rel=1e-6)
    whole = httpx2.get(f"{address}api/runs/{ended['id']}").json()
    assert len(whole["history"]) == 3
    shutil.rmtree(folder / "digits")


def test_pages_of_other_sites_hear_nothing(served: tuple[str, Path]) -> None:
    for headers, status in (
        ({"origin": "http://evil.example"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"host": "evil.example"}, 421),
    ):
        answer = httpx2.get(f"{served[0]}api/runs/events", headers=headers, timeout=5)
        assert answer.status_code == status
        assert list(answer.json()) == ["error"]


@contextmanager
def crowd(address: str, size: int) -> Iterator[None]:
    """So many listeners at once. Places of listeners that left are free within a moment, not at once."""
    streams = httpx2.Client(timeout=10, limits=httpx2.Limits(max_connections=2 * size))
    end = time.monotonic() + 20
    with ExitStack() as stack, streams:
        for _ in range(size):
            while True:
                answer = stack.enter_context(streams.stream("GET", f"{address}api/runs/events"))
                if answer.status_code == 200:
                    break
                assert answer.status_code == 429
                assert time.monotonic() < end
                answer.close()
                time.sleep(0.1)
        yield


def test_the_crowd_is_bounded_and_leaves_its_places(served: tuple[str, Path]) -> None:
    address, _ = served
    with crowd(address, events.MOST_LISTENERS):
        refused = httpx2.get(f"{address}api/runs/events", timeout=5)
        assert refused.status_code == 429
        assert "close one" in refused.json()["error"]
        assert httpx2.get(f"{address}api/runs").status_code == 200  # listeners take no place of the workers
    with crowd(address, events.MOST_LISTENERS):
        pass  # all places were left


def test_a_server_that_ends_lets_its_listeners_go(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "attar", "serve", "--port", "0", "--runs", str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address = server.stdout.readline().split()[3]
        with listening(address) as listener:
            listener.until(lambda event: event == ("rows", []))
            began = time.monotonic()
            server.send_signal(signal.SIGINT)
            _, errors = server.communicate(timeout=30)
            assert listener.ended.wait(5)
    assert time.monotonic() - began < 10
    assert "Traceback" not in errors
    assert server.returncode in (0, 130)


async def some(told: AsyncIterator[str], count: int) -> list[str]:
    return [await anext(told) for _ in range(count)]


def test_silence_is_broken_and_the_end_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "EVERY", 0.01)
    monkeypatch.setattr(events, "SILENCE", 0.05)
    leaving = False

    async def listen() -> list[str]:
        nonlocal leaving
        hub = Hub(lambda: [{"id": "a"}], lambda: leaving)
        with hub.place():
            told = hub.tell()
            found = await some(told, 4)
            leaving = True
            with pytest.raises(StopAsyncIteration):
                await some(told, 9)
        return found

    hello, rows, *comments = asyncio.run(listen())
    assert hello.startswith("retry:")
    assert rows == 'event: rows\ndata: [{"id": "a"}]\n\n'
    assert comments == [": nothing new\n\n"] * 2


def test_nobody_looks_where_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "EVERY", 0.01)
    monkeypatch.setattr(events, "MOST_LISTENERS", 2)
    looks = 0

    def look() -> list[dict[str, Any]]:
        nonlocal looks
        looks += 1
        return [{"id": str(looks)}]

    async def listen() -> None:
        hub = Hub(look, lambda: False)
        with hub.place():
            first = hub.tell()
            await some(first, 5)
            with hub.place(), pytest.raises(Refusal, match="2 pages listen already"), hub.place():
                pass
        seen = looks
        await asyncio.sleep(0.1)
        assert looks <= seen + 1  # one may have been under way
        with hub.place():  # and again
            assert (await some(hub.tell(), 2))[1].startswith("event: rows")

    asyncio.run(listen())


def test_a_look_that_fails_ends_the_stream_and_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "EVERY", 0.01)

    def look() -> list[dict[str, Any]]:
        raise OSError("the disk is gone")

    async def listen() -> list[str]:
        hub = Hub(look, lambda: False)
        with hub.place():
            return [event async for event in hub.tell()]

    with pytest.raises(OSError, match="the disk is gone"):
        asyncio.run(listen())
