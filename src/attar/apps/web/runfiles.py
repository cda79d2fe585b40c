"""The files of a run, read by somebody who trusts none of them: bounded, plain, behind no symbolic link."""

from __future__ import annotations

import csv
import dataclasses
import math
import os
import re
import stat
from itertools import islice
from pathlib import Path
from typing import Any

from attar import plainjson, spec
from attar.errors import SpecError, TrainingError
from attar.train.config import TrainConfig
from attar.train.live import PROGRESS, Status

__all__ = [
    "UnreadableError",
    "config",
    "history",
    "model",
    "printable",
    "read",
    "rivals",
    "status",
    "without_folders",
]

Row = dict[str, Any]

TEXT_BYTES, HISTORY_BYTES = 1 << 20, 4 << 20
MOST_COLUMNS = 64
MOST_RIVALS, MOST_POINTS = 8, 64
FOLDERS = re.compile(r"(?<![^\s'\"(])(?:[A-Za-z]:[\\/]|/)(?:[^\s\\/]+[\\/])*(?=[^\s\\/])")
COLUMN = re.compile(r"[a-z][a-z0-9_]{0,39}")


class UnreadableError(ValueError):
    """A file of a run that is not taken: one sentence, with the file's name and without its folder."""


def read(path: Path, most: int) -> bytes | None:
    """A file of a run, or None where there is none; raises :class:`UnreadableError`.

    Links are not followed, neither the file nor its folders; a pipe or device is never waited for.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    if Path(os.path.realpath(path)) != path:
        raise UnreadableError(f"{path.name} is or lies behind a symbolic link, which is not followed")
    try:
        with os.fdopen(os.open(path, flags | getattr(os, "O_BINARY", 0)), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise UnreadableError(f"{path.name} is no plain file")
            data = file.read(most + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UnreadableError(f"{path.name} cannot be read: {error.strerror or 'no plain file'}") from error
    if len(data) > most:
        raise UnreadableError(f"{path.name} is larger than {most} bytes, the most that is read")
    return data


def _text(folder: Path, name: str, most: int = TEXT_BYTES) -> str | None:
    data = read(folder / name, most)
    try:
        return None if data is None else data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableError(f"{name} is not UTF-8 text (byte {error.start})") from error


def _json(folder: Path, name: str) -> Any:
    text = _text(folder, name)
    if text is None:
        return None
    try:
        document, faults = plainjson.decode(text)
    except plainjson.NotPlainError as error:
        raise UnreadableError(f"{name}: {error}") from error
    if faults:
        raise UnreadableError(f"{name}: {next(iter(faults))}")
    return document


def config(folder: Path) -> Row:
    """The options of the run that this Attar knows; of the data set's path only the last part."""
    document = _json(folder, "config.json")
    if not isinstance(document, dict):
        raise UnreadableError("config.json holds no options of attar train")
    try:
        known = {field.name for field in dataclasses.fields(TrainConfig)}
        given = {key: value for key, value in document.items() if key in known}
        found = dataclasses.asdict(TrainConfig.from_dict(given, "config.json"))
    except TrainingError as error:
        raise UnreadableError(str(error)[:500]) from error
    del found["data_dir"]
    return found | {"dataset": printable(Path(found["dataset"]).name or "data")}


def history(folder: Path) -> list[Row]:
    """The rows of history.csv, numbers only; a number that is not finite is None."""
    text = _text(folder, "history.csv", HISTORY_BYTES)
    lines = csv.reader((text or "").splitlines())
    try:
        names = next(lines, [])
        if len(names) > MOST_COLUMNS or len(set(names)) < len(names) or not all(map(COLUMN.fullmatch, names)):
            raise UnreadableError("history.csv does not begin with the names of its columns")
        rows = [dict(zip(names, map(_number, line), strict=True)) for line in lines]
    except (csv.Error, ValueError) as error:
        raise UnreadableError(f"history.csv: {error}"[:200]) from error
    if any(row.get("epoch") != place for place, row in enumerate(rows, 1)):
        raise UnreadableError("history.csv: its rows are not those of epochs 1, 2, 3, ...")
    return rows


def _number(text: str) -> float | None:
    """A number of a CSV file; None where it is empty or not finite; raises ValueError."""
    value = float(text) if text else math.nan
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() and abs(value) < 1 << 53 else value


def status(folder: Path) -> Status | None:
    """What progress.json says; None where there is none, or it is none."""
    text = _text(folder, PROGRESS)
    return None if text is None else Status.from_json(text)


def model(folder: Path) -> Row | None:
    """The run's model.json, where it is sound."""
    try:
        document = _json(folder, "model.json")
        return dict(spec.parse(document).document)
    except (UnreadableError, SpecError):
        return None


def rivals(folder: Path) -> dict[str, list[list[float]]]:
    """Points (bits per pixel, PSNR) of other codecs, that a run of variable rate keeps."""
    try:
        document = _json(folder, "rivals.json")
    except UnreadableError:
        return {}
    if not isinstance(document, dict):
        return {}
    return {
        printable(name): [point for point in islice(points, MOST_POINTS) if _is_point(point)]
        for name, points in islice(document.items(), MOST_RIVALS)
        if isinstance(points, list)
    }


def _is_point(point: Any) -> bool:
    return isinstance(point, list) and len(point) == 2 and all(type(value) in (int, float) for value in point)


def without_folders(text: str) -> str:
    """A sentence whose absolute paths have lost their folders: where files lay is nobody's business."""
    return FOLDERS.sub("", text)


def printable(name: str) -> str:
    """A name as text that any page and any JSON can hold."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name)[:200]
