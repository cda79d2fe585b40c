"""A trainer of a small model on few digits, and what its runs leave."""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from attar import spec
from attar.train import checkpoint, datasets, trainer
from attar.train.config import TrainConfig
from attar.train.progress import Progress
from training_kit import dense


@functools.cache
def data(limit: int = 96) -> datasets.Dataset:
    return datasets.load("digits", limit=limit)


def make(run: Path, content: dict[str, Any] | None = None, **options: Any) -> trainer.Trainer:
    """A trainer of a small model on few digits: 3 steps in an epoch, unless told."""
    keywords = {key: options.pop(key) for key in ("watch", "checkpoint_path", "log_dir") if key in options}
    limit = options.pop("limit", 96)
    config = TrainConfig(limit=limit, **{"epochs": 2, "warmup": 0, "learning_rate": 3e-3, **options})
    model = spec.parse(dense() if content is None else content)
    return trainer.Trainer(config, model, data(limit), run, **keywords)


def weights(path: Path) -> dict[str, np.ndarray]:
    return dict(checkpoint.load(path).arrays)


def equal(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def interrupting_at(step: int) -> Callable[[Progress], None]:
    def watch(progress: Progress) -> None:
        if progress.batch == step:
            signal.raise_signal(signal.SIGINT)

    return watch
