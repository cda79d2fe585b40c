"""What a run tells of itself while it goes on, for readers in other processes.

``progress.json`` is written every two seconds for as long as the process lives, whatever it is doing, so that
its age tells a run that goes on from one that was killed. ``samples/epoch-N.png`` are ``regenerated.png`` as it
was after some of the epochs, spread evenly over the run.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from attar import plainjson
from attar.codec.files import write_bytes
from attar.errors import AttarError

if TYPE_CHECKING:
    from attar.train.progress import Progress  # which loads Keras; readers of runs do without

__all__ = ["EVERY", "PROGRESS", "SAMPLES", "STATES", "Live", "Status", "keep_sample", "kept", "sample_epoch"]

PROGRESS, SAMPLES = "progress.json", "samples"
EVERY = 2.0  # seconds between two writings
WINDOW = 150  # writings, over which the speed is measured
STATES = ("training", "finished", "interrupted", "failed")
MOST_SAMPLES = 12
SAMPLE = re.compile(r"epoch-([1-9][0-9]{0,8})\.png")


@dataclass(frozen=True)
class Status:
    """Where a run was when it last said so."""

    state: str
    """One of :data:`STATES`; "training" may be an old word of a process that was killed."""
    epoch: int
    """Finished epochs."""
    epochs: int
    """Epochs that the run was told to take; it may stop earlier."""
    step: int
    """Finished steps of the whole run."""
    steps: int
    """Steps that the run was told to take."""
    loss: float | None
    """Mean over the images of the epoch under way; None at its beginning."""
    psnr: float | None
    """Mean in dB, as ``loss``."""
    ssim: float | None
    """Mean, as ``loss``."""
    steps_per_second: float | None
    """Over the last minutes, validation included; None until some steps are taken."""
    seconds_left: float | None
    """For the steps that are left, at that speed; None where there is no speed."""
    fault: str | None
    """Why a run failed."""

    def to_json(self) -> str:
        """The document that :meth:`from_json` reads."""
        return json.dumps(dataclasses.asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Status | None:
        """What a file of anybody says, or None where it is no status."""
        try:
            values, faults = plainjson.decode(text)
            status = cls(**values)
        except (plainjson.NotPlainError, TypeError):
            return None
        counts = (status.epoch, status.epochs, status.step, status.steps)
        numbers = (status.loss, status.psnr, status.ssim, status.steps_per_second, status.seconds_left)
        sound = (
            status.state in STATES
            and all(type(count) is int and count >= 0 for count in counts)
            and all(number is None or type(number) in (int, float) for number in numbers)
            and (status.fault is None or isinstance(status.fault, str))
        )
        return status if sound and not faults else None


class Live:
    """Keeps a run's ``progress.json`` while its block runs; a file that cannot be written is left alone."""

    def __init__(self, run: Path, progress: Progress, epochs: int) -> None:
        self.run, self.progress, self.epochs = run, progress, epochs
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="attar-live", daemon=True)
        self._marks: deque[tuple[float, int]] = deque(maxlen=WINDOW)

    def __enter__(self) -> Live:
        self._write("training")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        if kind is None:
            self._write("finished")
        elif issubclass(kind, KeyboardInterrupt):
            self._write("interrupted")
        else:
            words = str(error) if isinstance(error, AttarError) else kind.__name__
            self._write("failed", words.replace(str(self.run), self.run.name)[:500])

    def status(self, state: str, fault: str | None = None) -> Status:
        """The run as it is now."""
        progress, step = self.progress, self._step()
        total = self.epochs * progress.steps_per_epoch
        before, first = self._marks[0] if self._marks else (0.0, step)
        speed = (step - first) / (time.monotonic() - before) if step > first else None
        left = (total - step) / speed if speed and state == "training" else None
        means = progress.means() if progress.images else {}
        found = [means.get(name) for name in ("loss", "psnr", "ssim")]
        loss, psnr, ssim = (value if value is not None and math.isfinite(value) else None for value in found)
        return Status(state, progress.epoch, self.epochs, step, total, loss, psnr, ssim, speed, left, fault)

    def _step(self) -> int:
        return self.progress.epoch * self.progress.steps_per_epoch + self.progress.batch

    def _beat(self) -> None:
        begun = self._step()
        while not self._ended.wait(EVERY):
            step = self._step()
            if step > begun or self._marks:  # the first step, with all that is built for it, tells no speed
                self._marks.append((time.monotonic(), step))
            self._write("training")

    def _write(self, state: str, fault: str | None = None) -> None:
        with suppress(AttarError):  # what is only told does not stop a run
            write_bytes(self.run / PROGRESS, self.status(state, fault).to_json().encode())


def kept(epoch: int) -> set[int]:
    """Epochs whose samples are kept after ``epoch``: at most 12, evenly spread, the last one among them.

    Those that are kept later are kept earlier, so a run that goes on needs nothing that it threw away.
    """
    stride = 1
    while -(-epoch // stride) > MOST_SAMPLES - 1:
        stride *= 2
    return {*range(1, epoch + 1, stride), epoch}


def keep_sample(run: Path, epoch: int, picture: bytes) -> None:
    """Keep an epoch's picture and throw away those that are too many, and those of later epochs.

    Raises:
        AttarError: if the folder cannot be written.
    """
    folder = run / SAMPLES
    try:
        folder.mkdir(exist_ok=True)
        write_bytes(folder / f"epoch-{epoch}.png", picture)
        wanted = kept(epoch)
        for path in folder.iterdir():
            found = sample_epoch(path.name)
            if found is not None and found not in wanted:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise AttarError(f"{folder}: cannot be written: {error.strerror or error}") from error


def sample_epoch(name: str) -> int | None:
    """The epoch of a sample by its file's name; None where it is no sample's."""
    found = SAMPLE.fullmatch(name)
    return int(found[1]) if found else None
