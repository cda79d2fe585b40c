"""Rows <-> ``ledger.csv``: RFC 4180, UTF-8, an empty cell for a number that does not exist.

Names that are not UTF-8 are written as the bytes they are (surrogateescape).
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from attar.apps.bulk.records import Row
from attar.codec.files import atomic
from attar.errors import AttarError
from attar.measure.rows import IDENTICAL

__all__ = ["COLUMNS", "read_rows", "to_csv", "write_rows"]

COLUMNS = tuple(field.name for field in fields(Row))
TEXTS = frozenset({"output", "input", "status", "error", "sha256", "worker"})
REALS = frozenset({"psnr", "ssim", "seconds"})


def to_csv(rows: Iterable[Row]) -> bytes:
    """The rows as a file, with the names of the columns as its first line."""
    text = io.StringIO()
    _write(text, rows)
    return text.getvalue().encode(errors="surrogateescape")


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write a file as of :func:`to_csv`, whole or not at all, without holding all rows at once."""
    with (
        atomic(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        _write(file, rows)


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of such a file, one after another; raises :class:`AttarError` with the place of a fault."""
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            table, number = csv.reader(file), 1
            if tuple(next(table, ())) != COLUMNS:
                raise AttarError(
                    f"{path} has other columns than this attar writes: begin anew with -f, or name another folder"
                )
            for cells in table:
                number += 1
                yield _row(cells)
    except OSError as error:
        raise AttarError(f"{path}: cannot be read: {error.strerror or error}") from error
    except csv.Error as error:
        raise AttarError(f"{path}, row {number + 1}: {error}; mend or delete that row") from error
    except ValueError as error:
        raise AttarError(f"{path}, row {number}: {error}; mend or delete that row") from error


def _write(file: io.TextIOBase | Any, rows: Iterable[Row]) -> None:
    writer = csv.writer(file)
    writer.writerow(COLUMNS)
    for row in rows:
        cells = (getattr(row, name) for name in COLUMNS)
        writer.writerow("" if cell is None else cell for cell in cells)


def _row(cells: list[str]) -> Row:
    if len(cells) != len(COLUMNS):
        raise ValueError(f"{len(cells)} cells instead of {len(COLUMNS)}")
    return Row(**{name: _value(name, cell) for name, cell in zip(COLUMNS, cells, strict=True)})


def _value(name: str, cell: str) -> Any:
    if name in TEXTS:
        return cell
    if cell == "":
        return None
    if name == "psnr" and cell == IDENTICAL:
        return IDENTICAL
    if name not in REALS:
        return int(cell)
    value = float(cell)
    if not math.isfinite(value):
        raise ValueError(f"{name} is {cell}, not a finite number")
    return value
