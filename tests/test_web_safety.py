"""Nothing of a request outlives it: no file after an error or a kill, no work for a client that has left."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.requests import Request

pytest.importorskip("fastapi", reason="attar[web] is not installed")

import httpx2

from attar.apps.web.limits import Limits, Refusal
from attar.apps.web.pool import CLIENT_CLOSED, Pool
from test_web_serve import open_files, pnm

DIGIT = pnm(np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8))
PHOTO = pnm(np.random.default_rng(0).integers(0, 256, (400, 600, 3), np.uint8))


@contextmanager
def server(home: Path, runs: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server whose every place for files of its own is ``home``."""
    places = dict.fromkeys(("TMPDIR", "HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "TEMP", "TMP"), str(home))
    words = [sys.executable, "-m", "attar", "serve", "--port", "0", "--runs", str(runs)]
    env = (
        os.environ
        | places
        | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    )
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=env, cwd=home) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().split()[3]
        finally:
            process.kill()


def left_in(*folders: Path) -> list[str]:
    return [str(path) for folder in folders for path in folder.rglob("*")]


def every_request(address: str) -> list[int]:
    """Good and bad requests to every address that takes a body; their statuses."""
    sound = httpx2.post(f"{address}api/compress?model=digits", content=DIGIT).content
    bodies = (DIGIT, PHOTO, PHOTO[:5000], sound, sound[:-3], b"RIFF\xff\xff\xff\xffWEBPVP8 ", b"", b"PK\3\4")
    asked = [
        "compress?model=digits",
        "compress?model=digits&target_bytes=1",
        "decompress",
        "inspect",
        "encode?codec=webp&quality=50",
        "encode?codec=jpeg&target_bytes=9",
        "convert?codec=jpeg&quality=50",
        "curve?codec=png",
    ]
    found = [
        httpx2.post(f"{address}api/{path}", content=body, timeout=60).status_code
        for path in asked
        for body in bodies
    ]
    forms = [{"a": DIGIT, "b": sound}, {"a": DIGIT, "b": b"junk"}, {"a": DIGIT}]
    found += [
        httpx2.post(f"{address}api/{path}", files=form, timeout=60).status_code
        for path in ("compare", "decode")
        for form in forms
    ]
    return found


def test_no_file_is_left_by_answers_errors_or_a_kill(tmp_path: Path) -> None:
    home, runs = tmp_path / "home", tmp_path / "runs"
    home.mkdir()
    runs.mkdir()
    for time_of_start in ("first", "after the kill"):
        with server(home, runs) as (process, address):
            if time_of_start == "first":
                statuses = every_request(address)
                assert {200, 400, 415, 422} <= set(statuses)
                assert max(statuses) < 500
            assert httpx2.post(f"{address}api/compress?model=digits", content=DIGIT).status_code == 200
            assert left_in(home, runs) == []
            port = int(address.rstrip("/").rsplit(":", 1)[1])
            with (
                socket.create_connection(("127.0.0.1", port)) as half,
                socket.create_connection(("127.0.0.1", port)) as working,
            ):
                head = b"POST /api/%s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n"
                working.sendall(head % (b"curve?codec=jpeg&codec=webp", len(PHOTO)) + PHOTO)
                half.sendall(head % (b"compress", 60_000_000) + bytes(20_000_000))
                time.sleep(0.5)  # one body has half arrived, one image is being worked on
                assert left_in(home, runs) == []
                assert open_files(home) == []
                process.send_signal(signal.SIGKILL)
                process.wait(10)
        assert left_in(home, runs) == []


class Visit:
    """A request whose client may leave."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    @property
    def request(self) -> Request:
        return Request(
            {"type": "http", "headers": [(b"content-length", b"0")], "method": "GET"}, self.receive
        )


def test_work_that_waits_is_dropped_when_its_client_leaves() -> None:
    """And the place of work that has begun is taken until it has ended, so that no crowd can grow."""
    pool = Pool(Limits(workers=1, queue=1))
    go, begun, done = threading.Event(), threading.Event(), []

    def slow() -> None:
        begun.set()
        go.wait(20)
        done.append("slow")

    async def ask(visit: Visit, work: Any) -> None:
        async with pool.place(visit.request) as place:
            await place.run(work)

    async def visits() -> None:
        first, second = Visit(), Visit()
        asking = [asyncio.create_task(ask(first, slow))]
        await asyncio.to_thread(begun.wait, 20)
        asking.append(asyncio.create_task(ask(second, lambda: done.append("waiting"))))
        await asyncio.sleep(0.05)
        assert pool.admitted == 2
        with pytest.raises(Refusal, match="busy with 2 requests"):
            await ask(Visit(), lambda: None)
        second.gone.set()
        with pytest.raises(Refusal) as refusal:
            await asking[1]
        assert refusal.value.status == CLIENT_CLOSED
        assert pool.admitted == 1  # what waited has freed its place
        first.gone.set()
        with pytest.raises(Refusal):
            await asking[0]
        assert pool.admitted == 1  # what runs keeps its own
        go.set()
        while pool.admitted:
            await asyncio.sleep(0.01)
        await ask(Visit(), lambda: done.append("next"))

    asyncio.run(asyncio.wait_for(visits(), 30))
    pool.close()
    assert done == ["slow", "next"]
