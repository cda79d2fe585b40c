"""Images x codecs x qualities -> rows: resumable, parallel, and no failure stops it.

::

    plan(paths, codecs) -> Plan        typos, impossible qualities, unreadable images show here, before work
    run(plan, folder)   -> list[Row]   rows.csv grows row by row; what it holds already is not measured again
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from attar.codec import images
from attar.errors import AttarError, ImageError
from attar.measure.anchors import Absent, Anchor, check_quality, find
from attar.measure.rows import Ledger, Row
from attar.measure.worker import Task

__all__ = ["Plan", "Source", "collect", "plan", "run"]

Progress = Callable[[int, int, str], None]
"""Called with rows done, rows in all, and what was measured last."""


@dataclass(frozen=True)
class Source:
    """An image to measure on: its path as given, the start of its SHA-256, its size, 1 or 3 channels."""

    path: str
    sha256: str
    width: int
    height: int
    channels: int


@dataclass(frozen=True)
class Plan:
    """What is to be measured.

    ``unreadable``: failed rows for images that cannot be measured on. ``asked``: a codec's name -> how it was
    asked for; ``qualities``: a codec's name -> what it is measured at.
    """

    sources: tuple[Source, ...]
    unreadable: tuple[Row, ...]
    anchors: tuple[Anchor, ...]
    absent: tuple[Absent, ...]
    asked: Mapping[str, str]
    qualities: Mapping[str, tuple[float | None, ...]]

    @property
    def size(self) -> int:
        """Rows in all."""
        return len(self.sources) * sum(len(self.qualities[anchor.name]) for anchor in self.anchors)


def collect(paths: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Files as given, and the images under folders, sorted; :class:`AttarError` where there is nothing."""
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in images.SUFFIXES and p.is_file())
            if not inside:
                raise AttarError(
                    f"{path} holds no images; expected files ending in {', '.join(sorted(images.SUFFIXES))}"
                )
            found += inside
        else:
            found.append(path)
    if not found:
        raise AttarError("no images were given: name files or folders")
    return list(dict.fromkeys(found))


def plan(
    paths: Sequence[str | os.PathLike[str]],
    codecs: Sequence[str],
    qualities: Mapping[str, Sequence[float]] | None = None,
) -> Plan:
    """Find the codecs and look at every image.

    ``qualities``: codec name -> the qualities to measure, instead of the codec's own list. Raises
    :class:`AttarError` for a codec that does not exist, a quality out of its range, or no image at all.
    """
    given = dict(qualities or {})
    found = [find(name) for name in codecs]
    names = [codec.name for codec in found]
    if unknown := sorted(set(given) - set(names)):
        raise AttarError(
            f"qualities are given for {unknown[0]!r}, which is not among the codecs: {', '.join(names)}"
        )
    if twice := [name for name in names if names.count(name) > 1]:
        raise AttarError(f"two codecs are called {twice[0]!r}: give each a label of its own, LABEL=CODEC")
    anchors = tuple(anchor for anchor in found if not isinstance(anchor, Absent))
    sources: list[Source] = []
    unreadable: list[Row] = []
    for path in collect(paths):
        try:
            sources.append(_look(path))
        except (ImageError, OSError) as error:
            unreadable.append(Row(image=str(path), status="failed", error=str(error)))
    return Plan(
        tuple(sources),
        tuple(unreadable),
        anchors,
        tuple(anchor for anchor in found if isinstance(anchor, Absent)),
        dict(zip(names, codecs, strict=True)),
        {anchor.name: _qualities(anchor, given.get(anchor.name)) for anchor in anchors},
    )


def run(
    plan: Plan,
    folder: str | os.PathLike[str],
    *,
    repeats: int = 3,
    jobs: int = 1,
    command: str = "",
    progress: Progress | None = None,
) -> list[Row]:
    """Measure what ``folder/rows.csv`` does not hold yet; give all rows of the plan, failed ones included.

    One codec after another, ``jobs`` images at a time, in processes of their own. ``repeats``: timed runs,
    of which the best counts, after a warm-up of each process; fewer for slow codecs. Rows are on disk as soon
    as they are measured, so an interrupted run goes on where it was; failed rows are tried again. Raises
    :class:`AttarError` when ``rows.csv`` cannot be read or written.
    """
    ledger = Ledger(Path(folder))
    done = {row.key: row for row in ledger.rows}
    wanted = [
        _blank(plan, source, anchor, jobs, command) for anchor in plan.anchors for source in plan.sources
    ]
    rows = {row.key: done[row.key] for blanks in wanted for row in blanks if row.key in done}
    ledger.append(plan.unreadable)
    for anchor in plan.anchors:
        missing = [[row for row in blanks if row.key not in rows] for blanks in wanted]
        tasks = [
            Task(plan.asked[anchor.name], tuple(blanks), repeats)
            for blanks in missing
            if blanks and blanks[0].codec == anchor.name
        ]
        for new in _measured(tasks, jobs):
            ledger.append(new)
            rows |= {row.key: row for row in new}
            if progress is not None:
                progress(len(rows), plan.size, f"{new[0].codec} on {Path(new[0].image).name}")
    return [*(rows[row.key] for blanks in wanted for row in blanks), *plan.unreadable]


def _blank(plan: Plan, source: Source, anchor: Anchor, jobs: int, command: str) -> list[Row]:
    """The rows to be measured of one image and one codec, without their numbers."""
    return [
        Row(
            image=source.path,
            sha256=source.sha256,
            width=source.width,
            height=source.height,
            channels=source.channels,
            codec=anchor.name,
            version=anchor.version,
            quality=quality,
            jobs=jobs,
            command=command,
        )
        for quality in plan.qualities[anchor.name]
    ]


def _look(path: Path) -> Source:
    picture = images.read(path)
    if picture.alpha is not None and picture.alpha.min() < 255:
        raise ImageError(
            f"{path} has an alpha channel; a benchmark takes opaque gray or RGB: flatten it first"
        )
    height, width, channels = picture.pixels.shape
    return Source(str(path), hashlib.sha256(path.read_bytes()).hexdigest()[:16], width, height, channels)


def _qualities(anchor: Anchor, given: Sequence[float] | None) -> tuple[float | None, ...]:
    if given is not None:
        return tuple(dict.fromkeys(check_quality(anchor, quality) for quality in given))
    return anchor.scale.defaults if anchor.scale is not None else (None,)


def _measured(tasks: Sequence[Task], jobs: int) -> Iterator[list[Row]]:
    """Answers as they come, from ``jobs`` processes, which are killed when it is left early."""
    waiting: queue.SimpleQueue[Task] = queue.SimpleQueue()
    answers: queue.SimpleQueue[list[Row] | Exception] = queue.SimpleQueue()
    running: set[_Process] = set()
    for task in tasks:
        waiting.put(task)
    with ThreadPoolExecutor(max(1, jobs)) as pool:
        for _ in range(min(jobs, len(tasks))):
            pool.submit(_lane, waiting, answers, running)
        try:
            for _ in tasks:
                answer = answers.get()
                if isinstance(answer, Exception):
                    raise answer
                yield answer
        finally:
            with suppress(queue.Empty):
                while True:
                    waiting.get_nowait()
            for process in set(running):
                process.kill()


def _lane(
    waiting: queue.SimpleQueue[Task],
    answers: queue.SimpleQueue[list[Row] | Exception],
    running: set[_Process],
) -> None:
    """Give tasks to one process, and start it anew when it died."""
    process: _Process | None = None
    try:
        while True:
            task = waiting.get_nowait()
            if process is None:
                process = _Process()
                running.add(process)
            if line := process.ask(task):
                answers.put([Row(**row) for row in json.loads(line)])
            else:
                running.discard(process)
                answers.put(task.failed(f"the codec ended its process ({process.end()})"))
                process = None
    except queue.Empty:
        pass
    except Exception as error:  # handed to the thread that waits for answers
        answers.put(error)
    finally:
        if process is not None:
            running.discard(process)
            process.end()


class _Process:
    """A running :mod:`attar.measure.worker`."""

    def __init__(self) -> None:
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by end()
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "attar.measure.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )

    def ask(self, task: Task) -> bytes:
        """One answer, or nothing when the process died."""
        if self.popen.stdin is None or self.popen.stdout is None:
            return b""
        try:
            self.popen.stdin.write(task.to_json().encode() + b"\n")
            self.popen.stdin.flush()
        except BrokenPipeError:
            return b""
        return self.popen.stdout.readline()

    def kill(self) -> None:
        """End it now; what it was asked is lost."""
        self.popen.kill()

    def end(self) -> str:
        """Let it end; say how it did, with the last line of what it complained about."""
        with suppress(BrokenPipeError, ValueError):
            self.popen.communicate()
        code = self.popen.wait()
        with self.errors as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            words = file.read().decode(errors="replace").strip().splitlines()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"{how}: {words[-1]}" if words else how
