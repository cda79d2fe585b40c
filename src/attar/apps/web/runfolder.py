"""The folders that ``attar train`` writes, read by somebody who trusts none of their files.

Below one folder runs are looked for, two levels deep and within limits; no symbolic link is followed. A run is
asked for by an id that comes from this listing, so no path ever comes from a client.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any

from attar.apps.web import runfiles
from attar.apps.web.limits import Refusal
from attar.apps.web.runfiles import UnreadableError, printable, without_folders
from attar.train.live import PROGRESS, SAMPLES, Status, sample_epoch

__all__ = ["Runs"]

Row = dict[str, Any]
Signature = tuple[Any, ...]

DEPTH = 2  # folders below the one that is served
MOST_ENTRIES = 5000  # looked at in all
MOST_RUNS = 100
MOST_ROWS = 1000  # of a history that is given out
PICTURE_BYTES = 16 << 20
SILENT = 15.0  # seconds after which a run that says nothing more is no longer training
PATIENT = 60.0  # seconds beside three epochs, for runs whose Attar wrote no progress.json
PNG = b"\x89PNG\r\n\x1a\n"
WHOLE = ("config", "history", "history_rows")  # left out of a list
BEST = ("epoch", "step", "val_loss", "val_psnr", "val_ssim", "val_bytes")


class Runs:
    """The runs below a folder. May be shared between threads."""

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.realpath(root))
        self._lock = Lock()
        self._read: dict[str, tuple[Signature, Row]] = {}

    def rows(self) -> list[Row]:
        """What every run says of itself, without histories: first those that go on, then the last ones."""
        found = [
            {key: value for key, value in self._row(folder).items() if key not in WHOLE}
            for folder in self._folders()
        ]
        return sorted(found, key=lambda row: (row["state"] != "training", -row["updated"], row["name"]))

    def detail(self, run: str) -> Row:
        """A run's row, with its configuration, its model.json, its history and its rivals' points."""
        folder = self._folder(run)
        return self._row(folder) | {"model": runfiles.model(folder), "rivals": runfiles.rivals(folder)}

    def sample(self, run: str, epoch: int) -> bytes:
        """The PNG of a kept epoch; raises :class:`Refusal`."""
        folder = self._folder(run)
        if epoch in self._row(folder)["samples"]:
            try:
                data = runfiles.read(folder / SAMPLES / f"epoch-{epoch}.png", PICTURE_BYTES)
            except UnreadableError as error:
                raise Refusal(404, f"the samples cannot be read: {error}") from error
            if data and data.startswith(PNG):
                return data
        raise Refusal(404, f"the run keeps no samples of epoch {epoch}; those that it keeps are in its row")

    def _folder(self, run: str) -> Path:
        for folder in self._folders():
            if self._id(folder) == run:
                return folder
        raise Refusal(404, f"no run has the id {run[:40]!r}; /api/runs lists them")

    def _id(self, folder: Path) -> str:
        return hashlib.sha256(self._name(folder).encode("utf-8", "surrogateescape")).hexdigest()[:12]

    def _name(self, folder: Path) -> str:
        return self.root.name or "run" if folder == self.root else folder.relative_to(self.root).as_posix()

    def _folders(self) -> list[Path]:
        """Folders that hold a run, at most :data:`MOST_RUNS`, those begun last."""
        found = list(_runs(self.root))
        return sorted(found, key=lambda folder: -_stat(folder / "config.json")[0])[:MOST_RUNS]

    def _row(self, folder: Path) -> Row:
        """What is read is kept until a file changes; what depends on the time of day is found anew."""
        run, signature = self._id(folder), _signature(folder)
        with self._lock:
            kept = self._read.get(run)
        if kept is None or kept[0] != signature:
            kept = (signature, self._fresh(folder))
            with self._lock:
                if len(self._read) >= 2 * MOST_RUNS:
                    self._read.clear()
                self._read[run] = kept
        row = dict(kept[1])
        status: Status | None = row.pop("status")
        row |= {"state": _state(folder, row, status)} | _told(row, status)
        if row["state"] != "training":
            row |= {"steps_per_second": None, "seconds_left": None}
        return row

    def _fresh(self, folder: Path) -> Row:
        row: Row = {
            "id": self._id(folder),
            "name": printable(self._name(folder)),
            "updated": max(_stat(folder / name)[0] for name in ("config.json", "history.csv")) / 1e9,
            "fault": None,
            "config": {},
            "history": [],
            "status": None,
            "best": None,
        }
        try:
            row["config"] = runfiles.config(folder)
            row["history"] = runfiles.history(folder)
            row["status"] = runfiles.status(folder)
        except UnreadableError as error:
            row["fault"] = str(error)
        judged = [line for line in row["history"] if line.get("val_loss") is not None]
        if judged:
            best = min(judged, key=lambda line: line["val_loss"])
            row["best"] = {key: best.get(key) for key in BEST}
        row["dataset"] = row["config"].get("dataset")
        row["history_rows"] = len(row["history"])
        row["samples"] = _samples(folder, row["history_rows"])
        row["history"] = thinned(row["history"])  # no file can ask for much memory
        return row


def _told(row: Row, status: Status | None) -> Row:
    """Where the run is: by its own word, else by its configuration and history."""
    rows, config = row["history_rows"], row["config"]
    last = row["history"][-1] if rows else {}
    per_epoch = (last.get("step") or 0) / max(rows, 1)
    counted = {
        "epoch": rows,
        "epochs": config.get("epochs"),
        "step": int(last.get("step") or 0),
        "steps": int(per_epoch * (config.get("epochs") or 0)) or None,
        **dict.fromkeys(("loss", "psnr", "ssim", "steps_per_second", "seconds_left")),
    }
    if status is None:
        return counted
    told = dataclasses.asdict(status)
    fault = row["fault"] or (printable(without_folders(status.fault)) if status.fault else None)
    return {key: told[key] for key in counted} | {"fault": fault}


def _state(folder: Path, row: Row, status: Status | None) -> str:
    if row["fault"]:
        return "unreadable"
    now = time.time()
    if status is not None:
        silent = now - _stat(folder / PROGRESS)[0] / 1e9 > SILENT
        return "interrupted" if status.state == "training" and silent else status.state
    rows, config = row["history_rows"], row["config"]
    patience = config.get("patience") or 0
    since = rows - (row["best"]["epoch"] or 0) if row["best"] else 0
    if rows >= (config.get("epochs") or 1) or (patience and since >= patience):
        return "finished"
    seconds = (row["history"][-1].get("seconds") or 0) / rows if rows else 0
    return "training" if now - row["updated"] < 3 * seconds + PATIENT else "interrupted"


def _runs(root: Path) -> Iterator[Path]:
    left, level = MOST_ENTRIES, [root]
    for depth in range(DEPTH + 1):
        below: list[Path] = []
        for folder in level:
            try:
                with os.scandir(folder) as entries:
                    seen = list(islice(entries, left))
            except OSError:
                continue
            left -= len(seen)
            files = {entry.name for entry in seen if entry.is_file(follow_symlinks=False)}
            if "config.json" in files and files & {"history.csv", PROGRESS}:
                yield folder
                continue
            if depth < DEPTH:
                below += [
                    Path(entry.path)
                    for entry in sorted(seen, key=lambda entry: entry.name)
                    if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
                ]
        level = below


def _samples(folder: Path, epochs: int) -> list[int]:
    """Epochs whose samples are kept, rising."""
    path = folder / SAMPLES
    try:
        if path.is_symlink():
            return []
        with os.scandir(path) as entries:
            seen = [entry.name for entry in islice(entries, 200) if entry.is_file(follow_symlinks=False)]
    except OSError:
        return []
    return sorted(epoch for name in seen if (epoch := sample_epoch(name)) and epoch <= epochs)


def thinned(history: list[Row]) -> list[Row]:
    """At most :data:`MOST_ROWS` rows, evenly, the last one among them."""
    stride = -(-len(history) // MOST_ROWS)
    return history if stride <= 1 else history[::-1][::stride][::-1]


def _stat(path: Path) -> tuple[int, int]:
    try:
        found = path.lstat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


def _signature(folder: Path) -> Signature:
    return tuple(_stat(folder / name) for name in ("config.json", "history.csv", PROGRESS, SAMPLES))
