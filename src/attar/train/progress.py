"""Where a training run is: the books that it keeps, and that every checkpoint holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from attar.errors import CheckpointError
from attar.train import steps

Row = dict[str, float]
"""One epoch's numbers by their names in history.csv."""


@dataclass
class Progress:
    """Where a run is: handed to the watcher after every step, and part of every checkpoint."""

    epoch: int = 0
    """Finished epochs."""
    batch: int = 0
    """Finished steps of the epoch under way."""
    steps_per_epoch: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0] * len(steps.METRICS))
    """Sums over the epoch's images of the METRICS, with a discriminator of ALL_METRICS."""
    images: int = 0
    """Images seen in the epoch under way."""
    seconds: float = 0.0
    """Time spent in finished epochs and in this one."""
    best: float | None = None
    """Lowest validation loss so far."""
    waited: int = 0
    """Epochs since the best."""
    history: list[Row] = field(default_factory=list)

    @property
    def steps(self) -> int:
        """Finished steps of the whole run."""
        return self.epoch * self.steps_per_epoch + self.batch

    def means(self) -> dict[str, float]:
        """The epoch's training metrics so far, averaged over its images."""
        names = steps.ALL_METRICS[: len(self.sums)]
        return {name: total / max(self.images, 1) for name, total in zip(names, self.sums, strict=True)}

    @classmethod
    def from_record(cls, record: Any, fresh: Progress) -> Progress:
        """What a checkpoint says, for a run that would begin with ``fresh``. Raises CheckpointError."""
        try:
            progress = cls(**record)
            counts = (
                progress.epoch,
                progress.batch,
                progress.steps_per_epoch,
                progress.images,
                progress.waited,
            )
            numbers = [*progress.sums, progress.seconds, progress.best or 0.0]
            numbers += [value for row in progress.history for value in row.values()]
            sound = (
                all(type(count) is int and count >= 0 for count in counts)
                and all(type(number) in (int, float) for number in numbers)
                and len(progress.sums) in (len(steps.METRICS), len(steps.ALL_METRICS))
                and len(progress.history) == progress.epoch
                and len({tuple(row) for row in progress.history}) <= 1
                and all("val_loss" in row for row in progress.history)
            )
        except (TypeError, AttributeError) as error:
            raise CheckpointError(f"its progress is damaged: {error}") from error
        if not sound or progress.batch > progress.steps_per_epoch:
            raise CheckpointError("its progress is damaged")
        if progress.steps_per_epoch != fresh.steps_per_epoch:
            raise CheckpointError(
                f"an epoch had {progress.steps_per_epoch} steps and now has {fresh.steps_per_epoch}: "
                "the data set or the options have changed"
            )
        if len(progress.sums) != len(fresh.sums):
            raise CheckpointError(
                "a discriminator takes part only before or only now: --adversarial-weight differs"
            )
        return progress
