"""The default engine: processes of this machine, each with one thread and one connection."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Self

from attar.apps.bulk.records import Answer, Lost, Settings, Shard
from attar.apps.bulk.worker import Worker

__all__ = ["Processes", "cores"]

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


class Processes:
    """``jobs`` workers; one that dies is replaced. A context manager, which ends them."""

    def __init__(self, settings: Settings, model: bytes | None, out: Path, jobs: int) -> None:
        self.arguments = (settings, model, out)
        self.jobs = jobs
        self._lanes: list[_Lane] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for lane in self._lanes:
            lane.kill()
        self._lanes.clear()

    def run(self, shards: Sequence[Shard]) -> Iterator[tuple[Shard, Answer | Lost]]:
        """Answers as they come; see :class:`attar.apps.bulk.run.Engine`."""
        waiting = iter(shards)
        missing = min(self.jobs, len(shards)) - len(self._lanes)
        self._lanes += [_Lane(self.arguments) for _ in range(missing)]
        running: dict[Any, _Lane] = {}
        for lane, shard in zip(self._lanes, waiting, strict=False):
            lane.give(shard)
            running[lane.connection] = lane
        while running:
            for ready in wait(list(running)):
                lane = running.pop(ready)
                shard, answer = lane.shard, lane.answer()
                if isinstance(answer, Lost):
                    self._lanes.remove(lane)
                    lane = _Lane(self.arguments)
                    self._lanes.append(lane)
                if (following := next(waiting, None)) is not None:
                    lane.give(following)
                    running[lane.connection] = lane
                yield shard, answer


class _Lane:
    """One worker process, and the shard that it has been given."""

    def __init__(self, arguments: tuple[Any, ...]) -> None:
        context = multiprocessing.get_context(
            "spawn"
        )  # a fork would copy the locks of this process's threads
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, *arguments), daemon=True)
        with _environment(ONE_THREAD):
            self.process.start()
        theirs.close()

    def give(self, shard: Shard) -> None:
        """Ask for a shard; a process that has died says so when it is to answer."""
        self.shard = shard
        with suppress(OSError):
            self.connection.send(shard)

    def answer(self) -> Answer | Lost:
        """The answer, once the connection is ready."""
        try:
            answer: Answer = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            self.connection.close()
            code = self.process.exitcode or 0
            return Lost(f"signal {-code}" if code < 0 else f"exit code {code}")
        return answer

    def kill(self) -> None:
        """End it now; what it was doing is lost."""
        self.process.kill()
        self.process.join()
        self.connection.close()


@contextmanager
def _environment(changes: dict[str, str]) -> Iterator[None]:
    """Variables that a process started here has; numpy reads them before any of our code runs there."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def serve(connection: Connection[Any, Any], settings: Settings, model: bytes | None, out: Path) -> None:
    """The worker process: answer shards until the driver ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the driver, which ends this process
    threading.Thread(target=_end_with_driver, daemon=True).start()
    worker = Worker(settings, model, out)
    with suppress(EOFError, OSError):
        while True:
            connection.send(worker(connection.recv()))


def _end_with_driver() -> None:
    """A driver that was killed may be started again at once: none of its workers is to write beside the new ones."""
    if driver := multiprocessing.parent_process():
        driver.join()
        os._exit(1)
