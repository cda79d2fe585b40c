"""``attar serve`` as a process: many clients at once, clients that leave, its end."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import attar

pytest.importorskip("fastapi", reason="attar[web] is not installed")

import httpx2

from web_browser import serve


@pytest.fixture(scope="module")
def address(photo_bundle: Path) -> Iterator[str]:
    yield from serve(ATTAR_MODELS=str(photo_bundle.parent))


def pnm(pixels: np.ndarray) -> bytes:
    kind = b"P5" if pixels.ndim == 2 else b"P6"
    return kind + b"\n%d %d\n255\n" % (pixels.shape[1], pixels.shape[0]) + pixels.tobytes()


def test_two_hundred_at_once_lose_nothing(address: str, photo_bundle: Path) -> None:
    random = np.random.default_rng(0)
    sides = (28, 40, 100, 300)
    images = [
        np.repeat(np.repeat(random.integers(0, 256, (side // 4, side // 4, 3), np.uint8), 4, 0), 4, 1)
        for side in sides
    ]
    codec = attar.load(photo_bundle)
    wanted = [codec.compress(image) for image in images]
    bodies = [pnm(image) for image in images]

    def ask(number: int) -> bool:
        answer = client.post(f"{address}api/compress?model=toy-photo", content=bodies[number % len(bodies)])
        return answer.status_code == 200 and answer.content == wanted[number % len(wanted)]

    limits = httpx2.Limits(max_connections=200)
    with httpx2.Client(timeout=60, limits=limits) as client, ThreadPoolExecutor(200) as crowd:
        assert list(crowd.map(ask, range(200))) == [True] * 200


def test_clients_that_leave_do_not_stay_in_the_way(address: str) -> None:
    port = int(address.rstrip("/").rsplit(":", 1)[1])
    head = b"POST /api/compress HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000\r\n\r\nP5\n"
    for _ in range(300):  # more than may wait
        with socket.create_connection(("127.0.0.1", port)) as leaving:
            leaving.sendall(head)
    end = time.monotonic() + 10
    while (status := httpx2.get(f"{address}api/models").status_code) == 429 and time.monotonic() < end:
        time.sleep(0.05)
    assert status == 200


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01 this is no HTTP\r\n\r\n",
        b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"POST /api/compress HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /api/compress HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    ],
)
def test_what_is_no_request_is_refused(address: str, request_: bytes) -> None:
    port = int(address.rstrip("/").rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as raw:
        raw.sendall(request_)
        assert raw.recv(200).startswith(b"HTTP/1.1 4")
    assert httpx2.get(address).status_code == 200


def test_a_port_that_is_taken_is_told(address: str) -> None:
    port = address.rstrip("/").rsplit(":", 1)[1]
    words = [sys.executable, "-m", "attar", "serve", "--port", port]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert f"127.0.0.1:{port} cannot be listened on" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_large_form_is_held_in_memory(tmp_path: Path) -> None:
    """No upload touches the disk, so a server that is killed leaves nothing behind."""
    for running in serve(TMPDIR=str(tmp_path)):
        port = int(running.rstrip("/").rsplit(":", 1)[1])
        before = set(tmp_path.iterdir())
        with socket.create_connection(("127.0.0.1", port)) as raw:
            part = b'--x\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\n' + bytes(5_000_000)
            raw.sendall(
                b"POST /api/compare HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9000000\r\n"
                b"Content-Type: multipart/form-data; boundary=x\r\n\r\n" + part
            )
            time.sleep(0.3)
            assert set(tmp_path.iterdir()) == before
            assert not [name for name in open_files(tmp_path) if name.endswith("(deleted)")]


def open_files(folder: Path) -> list[str]:
    """Files in ``folder``, deleted ones too, that a process of this user has open."""
    found = []
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            target = str(link.readlink())
        except OSError:
            continue
        if target.startswith(f"{folder}/"):
            found.append(target)
    return found


def test_ctrl_c_ends_it_quietly() -> None:
    words = [sys.executable, "-m", "attar", "serve", "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline().startswith("Attar is at")
        time.sleep(1)
        server.send_signal(signal.SIGINT)
        _, errors = server.communicate(timeout=30)
    assert "Traceback" not in errors
    assert server.returncode in (0, 130)


def test_the_greeting_says_where_and_what_and_warns_of_others(tmp_path: Path) -> None:
    for host, warned in (("127.0.0.1", False), ("0.0.0.0", True)):
        words = [
            sys.executable,
            "-m",
            "attar",
            "serve",
            "--port",
            "0",
            "--host",
            host,
            "--runs",
            str(tmp_path),
        ]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            assert server.stdout.readline().startswith(f"Attar is at http://{host}:")
            assert str(tmp_path) in server.stdout.readline()
            server.send_signal(signal.SIGINT)
            _, errors = server.communicate(timeout=30)
        assert ("may be reached from other machines" in errors) == warned


def test_a_folder_of_runs_that_is_not_there_is_told() -> None:
    words = [sys.executable, "-m", "attar", "serve", "--runs", "no-such-folder"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "'no-such-folder' does not exist" in done.stderr
