"""What a run writes for people: config, model.json, history.csv, TensorBoard, pictures.

Everything here is made again from the history, so a resumed run's journal is that of an uninterrupted one.
"""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attar import spec as specs
from attar.codec.files import write_bytes
from attar.errors import TrainingError
from attar.measure import metrics
from attar.train import datasets, live, pictures, ratedistortion
from attar.train.config import TrainConfig
from attar.train.network import Network, parameters

Row = dict[str, float]


class Journal:
    """Writes one run's folder."""

    def __init__(self, run: Path, log_dir: Path) -> None:
        self.run, self.log_dir = run, log_dir
        self.writer: Any = None
        self.rivals: Mapping[str, ratedistortion.Points] = {}

    def begin(
        self,
        config: TrainConfig,
        spec: specs.ModelSpec,
        network: Network,
        data: datasets.Dataset,
        discriminator: Any = None,
    ) -> None:
        """Write what is known before the first step.

        Raises:
            AttarError: if the folder cannot be written.
        """
        for folder in (self.run, self.log_dir):
            check_folder(folder)
        try:
            self.run.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainingError(f"{self.run}: cannot be written: {error.strerror}") from error
        write_bytes(self.run / "config.json", config.to_json().encode())
        write_bytes(self.run / "model.json", spec.to_json().encode())
        pictures.drawing(network, self.run / "model.svg", discriminator)
        self.writer = _tensorboard(self.log_dir)
        self.writer.add_text("model", f"```\n{summary(network, discriminator)}\n```")
        self.writer.add_text("config", f"```json\n{config.to_json()}```")
        self.writer.add_text("data", data.description)
        if network.has_qualities:
            self.rivals = ratedistortion.rivals(data.validation, self.run / "rivals.json")

    def epoch(
        self,
        row: Row,
        history: Sequence[Row],
        originals: np.ndarray,
        regenerated: np.ndarray,
        sizes: np.ndarray,
    ) -> None:
        """Write one finished epoch.

        ``originals`` and ``regenerated`` are a few validation images (N, H, W, C) uint8, ``sizes`` the bytes
        of their latents (N,).
        """
        for key, value in row.items():
            if key not in ("epoch", "step"):
                group, name = ("validation", key[4:]) if key.startswith("val_") else ("training", key)
                self.writer.add_scalar(f"{group}/{name}", value, int(row["step"]))
        self.writer.add_image(
            "regenerated", pictures.strip(originals, regenerated), int(row["step"]), dataformats="HWC"
        )
        self.writer.flush()
        write_bytes(self.run / "history.csv", history_csv(history).encode())
        pictures.curves(history, self.run / "curves.png")
        if ratedistortion.points(row):
            ratedistortion.draw(history, self.rivals, self.run / "rd.png")
        found = (sizes, metrics.psnr(originals, regenerated), metrics.ssim(originals, regenerated))
        captions = [
            f"{size:.0f} bytes, {'identical' if np.isinf(psnr) else f'{psnr:.1f} dB'}, SSIM {ssim:.3f}"
            for size, psnr, ssim in zip(*found, strict=True)
        ]
        shown = self.run / "regenerated.png"
        pictures.regenerated(originals, regenerated, captions, shown)
        live.keep_sample(self.run, int(row["epoch"]), shown.read_bytes())

    def close(self) -> None:
        """Flush and close TensorBoard's file."""
        if self.writer is not None:
            self.writer.close()


def check_folder(path: Path) -> None:
    """Refuse a folder that cannot be made or written, before any work is done, and make nothing.

    Raises:
        TrainingError: with the system's reason.
    """
    try:
        nearest = path
        while not nearest.exists() and nearest != nearest.parent:
            nearest = nearest.parent
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise TrainingError(f"{path}: cannot be written: {error.strerror or error}") from error


def log_scalars(log_dir: Path, scalars: Mapping[str, float]) -> None:
    """Write numbers, as of step 0, to TensorBoard's files."""
    with _tensorboard(log_dir) as writer:
        for name, value in scalars.items():
            writer.add_scalar(name, value, 0)


def _tensorboard(log_dir: Path) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    try:
        return SummaryWriter(str(log_dir))
    except OSError as error:
        raise TrainingError(f"{log_dir}: cannot write TensorBoard's files: {error.strerror}") from error


def summary(network: Network, discriminator: Any = None) -> str:
    """Keras's table of layers, shapes and weights of both transforms and the discriminator, and the totals."""
    lines: list[str] = []
    for part in (network.analysis, network.synthesis, *([] if discriminator is None else [discriminator])):
        part.summary(print_fn=lambda line, **_: lines.append(line))
    sizes = ", ".join(f"{name}: {count:,} weights" for name, count in parameters(network).items())
    return "\n".join([*lines, sizes])


def history_csv(history: Sequence[Row]) -> str:
    """The history as CSV text, a row for each epoch."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(history[0]), lineterminator="\n")
    writer.writeheader()
    for row in history:
        writer.writerow({key: f"{v:.7g}" if isinstance(v, float) else v for key, v in row.items()})
    return text.getvalue()
