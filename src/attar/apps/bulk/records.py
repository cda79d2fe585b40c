"""What travels between the driver and the workers: settings, items, shards, rows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from attar.measure.rows import Ratio

__all__ = ["COMPRESS", "DECOMPRESS", "Answer", "Item", "Lost", "Row", "Settings", "Shard"]

COMPRESS, DECOMPRESS = "compress", "decompress"


@dataclass(frozen=True)
class Settings:
    """What decides the bytes of the outputs and the columns of the ledger.

    ``model``: SHA-256 of the bundle, empty where each file names its own. ``target``: kind and value of
    :class:`attar.codec.targets.Target`, or None. ``suffix``: of the outputs, with its dot. ``metrics``: whether
    every file is decoded again, for PSNR and SSIM. ``max_pixels`` only decides what is refused.
    """

    direction: str
    suffix: str
    model: str = ""
    quality: int | None = None
    target: tuple[str, float] | None = None
    effort: int = 0
    convert: bool = False
    strip: bool = False
    metrics: bool = False
    max_pixels: int = 1 << 28

    def identity(self) -> dict[str, Any]:
        """What must be the same for a run to go on, as plain JSON."""
        out = {name: value for name, value in asdict(self).items() if name != "max_pixels"}
        return out | {"target": list(self.target) if self.target else None}


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What became of one image: a line of the ledger.

    ``output``: relative to the folder of the outputs, with slashes; ``input``: an absolute path. ``status``:
    "ok" or "failed", and then ``error`` and its ``exit_code``. ``bytes`` and ``sha256`` (its first 16 digits)
    are the output's; ``input_mtime_ns`` with ``input_bytes`` tells whether the input has changed since.
    ``psnr`` in dB. ``seconds``: wall-clock time of the worker, of a batch in equal parts. ``worker``: host and
    process.
    """

    output: str
    input: str
    status: str = "ok"
    error: str = ""
    exit_code: int = 0
    input_bytes: int | None = None
    bytes: int | None = None
    width: int | None = None
    height: int | None = None
    channels: int | None = None
    psnr: Ratio = None
    ssim: float | None = None
    seconds: float | None = None
    sha256: str = ""
    input_mtime_ns: int | None = None
    worker: str = ""

    @property
    def ok(self) -> bool:
        """Whether the output was made."""
        return self.status == "ok"


@dataclass(frozen=True, slots=True)
class Item:
    """One image to be done. ``size``: bytes to be read for it.

    ``row``: of an earlier run, whose output is kept if it is still what that row says. ``ours``: an output that is
    there was made by an earlier attempt and may be written anew; any other is left alone.
    """

    input: str
    output: str
    size: int = 0
    row: Row | None = None
    ours: bool = False


@dataclass(frozen=True, slots=True)
class Shard:
    """Items that one worker does at a time. ``tries``: how many workers died over it."""

    name: str
    items: tuple[Item, ...]
    tries: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """A worker's answer: a row for each item, in their order; or, in ``fault``, why the ledger took none."""

    rows: tuple[Row, ...] = ()
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Lost:
    """What came of a shard instead of an answer, ``how`` in words; ``tried``: a worker died over it."""

    how: str
    tried: bool = True
