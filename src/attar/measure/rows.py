"""``rows.csv``: one line for each image, codec and quality, with its numbers, its versions and its command.

A row that failed has ``status`` "failed", its reason in ``error``, and no numbers. An empty cell is a number
that does not exist (MS-SSIM of a tiny image, memory on a system that does not tell); the PSNR of identical
images is the word ``identical``.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from attar.codec.files import write_bytes
from attar.errors import AttarError

__all__ = ["COLUMNS", "IDENTICAL", "Ledger", "Ratio", "Row", "read_rows", "to_csv"]

IDENTICAL: Literal["identical"] = "identical"
Ratio = float | Literal["identical"] | None
"""A signal-to-noise ratio in dB, the word for identical images, or None where it was not measured."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement. ``bpp`` is ``8 * bytes / (width * height)`` of the whole file; times are milliseconds.

    ``sha256``: first 16 digits of the image file's. ``quality``: None where the codec has none. ``psnr``,
    ``ssim``, ``ms_ssim``: on RGB (or gray); ``_y``: on BT.601 luma; ``psnr_summed``: see
    :func:`attar.measure.metrics.psnr_summed`. ``runs``: how many runs the two times are the best of.
    ``peak_mib``: most memory of the measuring process, interpreter and libraries included, during encoding
    and decoding. ``jobs``: measurements that ran side by side.
    """

    image: str
    sha256: str = ""
    width: int | None = None
    height: int | None = None
    channels: int | None = None
    codec: str = ""
    version: str = ""
    quality: float | None = None
    status: str = "ok"
    error: str = ""
    bytes: int | None = None
    bpp: float | None = None
    psnr: Ratio = None
    psnr_y: Ratio = None
    psnr_summed: Ratio = None
    ssim: float | None = None
    ssim_y: float | None = None
    ms_ssim: float | None = None
    ms_ssim_y: float | None = None
    encode_ms: float | None = None
    decode_ms: float | None = None
    runs: int | None = None
    peak_mib: float | None = None
    jobs: int | None = None
    command: str = ""

    @property
    def ok(self) -> bool:
        """Whether it was measured."""
        return self.status == "ok"

    @property
    def key(self) -> tuple[str, str, str, str, float | None]:
        """What makes a measurement worth keeping: the same image, codec, version and quality."""
        return (self.image, self.sha256, self.codec, self.version, self.quality)


COLUMNS = tuple(field.name for field in fields(Row))
INTEGERS = frozenset({"width", "height", "channels", "bytes", "runs", "jobs"})
TEXTS = frozenset({"image", "sha256", "codec", "version", "status", "error", "command"})
RATIOS = frozenset({"psnr", "psnr_y", "psnr_summed"})


def to_csv(rows: Iterable[Row], *, header: bool = True) -> str:
    """The rows as CSV text (RFC 4180, but LF), with the column names as first line."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow(COLUMNS)
    for row in rows:
        cells = [getattr(row, name) for name in COLUMNS]
        writer.writerow("" if cell is None else cell for cell in cells)
    return text.getvalue()


def read_rows(path: Path) -> list[Row]:
    """The rows of a file that :func:`to_csv` wrote, less a last line cut short by a kill or a full disk.

    Raises :class:`AttarError`, with the row, for anything else.
    """
    try:
        text = path.read_bytes().decode(errors="surrogateescape")
        table = list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1], newline="")))
    except (OSError, csv.Error) as error:
        raise AttarError(f"{path} cannot be read: {error}") from error
    if table and tuple(table[0]) != COLUMNS:
        raise AttarError(
            f"{path} has other columns than this attar writes: move it away, or choose another folder"
        )
    return [_row(cells, path, number) for number, cells in enumerate(table[1:], start=2)]


def _row(cells: list[str], path: Path, number: int) -> Row:
    try:
        return Row(**{name: _value(name, cell) for name, cell in zip(COLUMNS, cells, strict=True)})
    except ValueError as error:
        raise AttarError(f"{path}, row {number}: {error}; mend or delete that row") from error


def _value(name: str, cell: str) -> Any:
    if name in TEXTS:
        return cell
    if cell == "":
        return None
    if name in RATIOS and cell == IDENTICAL:
        return IDENTICAL
    if name in INTEGERS:
        return int(cell)
    value = float(cell)
    if not math.isfinite(value):
        raise ValueError(f"{name} is {cell}, not a finite number")
    return int(value) if name == "quality" and value.is_integer() else value


class Ledger:
    """``rows.csv`` in a folder: what was measured before is found again; a new row is on disk at once."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "rows.csv"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise AttarError(f"{folder} cannot be made a folder for results: {error.strerror}") from error
        self.rows = [row for row in read_rows(self.path) if row.ok] if self.path.exists() else []
        write_bytes(self.path, to_csv(self.rows).encode(errors="surrogateescape"))

    def append(self, rows: Iterable[Row]) -> None:
        """Add rows; raises :class:`AttarError` when the disk is full: what was there before stays."""
        rows = list(rows)
        try:
            with self.path.open("ab") as file:
                file.write(to_csv(rows, header=False).encode(errors="surrogateescape"))
        except OSError as error:
            raise AttarError(
                f"{self.path} cannot be written: {error.strerror}; {len(self.rows)} rows measured so far are "
                "kept: make room and give the same command again"
            ) from error
        self.rows += rows
