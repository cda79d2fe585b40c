"""Everything that decides a training run, as one frozen record that is saved inside the run."""

from __future__ import annotations

import dataclasses
import difflib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attar.errors import TrainingError

SCHEDULES = ("constant", "cosine", "wsd")
LOSSES = ("ssim-l1", "mse", "ms-ssim")


def option(default: Any, text: str) -> Any:
    """A field with its sentence, which is also the help of the option of `attar train` made from it."""
    return dataclasses.field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class TrainConfig:
    """One training run. Every field is an option of ``attar train`` of the same name."""

    dataset: str = option(
        "digits",
        "'digits', a folder, or (with 'tfds') the name of a TensorFlow data set.",
    )
    tfds: bool = option(
        False,
        "Read 'dataset' through tensorflow-datasets.",
    )
    data_dir: str | None = option(
        None,
        "Folder in which tensorflow-datasets keeps its data; None is its own choice.",
    )
    height: int | None = option(
        None,
        "Pixels that images are resized to; None keeps the model's or the images' own.",
    )
    width: int | None = option(
        None,
        "Pixels that images are resized to; None keeps the model's or the images' own.",
    )
    channels: int | None = option(
        None,
        "1 gray or 3 RGB; None takes the model's.",
    )
    crop: int | None = option(
        None,
        "Side in pixels of the random square crops trained on; None trains on whole images.",
    )
    shift: int = option(
        0,
        "Largest random shift of a training image in pixels.",
    )
    flip: bool = option(
        False,
        "Flip half of the training images left to right.",
    )
    limit: int | None = option(
        None,
        "Largest number of images taken from the data set; None takes all.",
    )
    latent_dims: int | None = option(
        None,
        "Units or filters of 'compressed_representation'; None takes the file's, or 50 where it leaves them open.",
    )
    batch_size: int = option(
        32,
        "Images in one step.",
    )
    epochs: int = option(
        15,
        "Passes over the training images (or stretches of 'steps_per_epoch').",
    )
    steps_per_epoch: int | None = option(
        None,
        "Steps between two validations; None is one pass over the training images.",
    )
    learning_rate: float = option(
        1e-3,
        "Peak learning rate of Adam.",
    )
    schedule: str = option(
        "cosine",
        "'constant', 'cosine' (to zero over all epochs) or 'wsd' (constant, then linear to zero in the last fifth).",
    )
    warmup: int = option(
        200,
        "Steps in which the learning rate rises linearly from zero.",
    )
    loss: str = option(
        "ssim-l1",
        "Distortion: 'ssim-l1', 'mse' (255^2 scale) or 'ms-ssim'.",
    )
    weight: float = option(
        1.0,
        "Factor of the distortion.",
    )
    alpha: float = option(
        0.75,
        "Share of 1 - SSIM against mean absolute error in 'ssim-l1'.",
    )
    lmbda: float = option(
        0.02,
        "Price of one bit per pixel in the loss.",
    )
    clip_norm: float = option(
        1.0,
        "Largest norm of a step's gradient; 0 clips nothing.",
    )
    average: float = option(
        0.0,
        "Momentum of the running average of the weights that is validated and kept; 0 keeps none.",
    )
    patience: int = option(
        4,
        "Epochs without a better validation loss before the run stops; 0 never stops early.",
    )
    seed: int = option(
        0,
        "Seed of the weights, the order of the images, the crops and the quantisation noise.",
    )
    bf16: bool = option(
        False,
        "Compute the transforms in bfloat16 (weights, prior and losses stay float32).",
    )
    compiled: bool = option(
        False,
        "Compile the training step.",
    )
    save_minutes: float = option(
        5.0,
        "Minutes between two checkpoints inside an epoch.",
    )

    def __post_init__(self) -> None:
        faults = []
        for name in ("batch_size", "epochs", "steps_per_epoch", "crop", "height", "width", "latent_dims", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                faults.append(f"{name} is {value}, expected at least 1")
        for name in ("weight", "lmbda", "clip_norm", "warmup", "patience", "shift"):
            if getattr(self, name) < 0:
                faults.append(f"{name} is {getattr(self, name)}, expected at least 0")
        if not 0 < self.learning_rate < 10:
            faults.append(f"learning_rate is {self.learning_rate}, expected above 0 and below 10")
        if not 0 <= self.alpha <= 1:
            faults.append(f"alpha is {self.alpha}, expected from 0 to 1")
        if not 0 <= self.average < 1:
            faults.append(f"average is {self.average}, expected from 0 to below 1")
        for name, choices in (("schedule", SCHEDULES), ("loss", LOSSES)):
            if getattr(self, name) not in choices:
                faults.append(f"{name} is {getattr(self, name)!r}, expected one of {', '.join(choices)}")
        if self.channels not in (None, 1, 3):
            faults.append(f"channels is {self.channels}, expected 1 or 3")
        if faults:
            raise TrainingError("; ".join(faults))

    def to_json(self) -> str:
        """The record as JSON text."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str) -> TrainConfig:
        """Read what :meth:`to_json` wrote.

        Raises:
            TrainingError: for text that is no such record, or keys that are none of its fields.
        """
        try:
            values: Any = json.loads(text)
        except ValueError as error:
            raise TrainingError(f"{source}: not JSON ({error})") from error
        known = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(values, dict):
            raise TrainingError(f"{source}: expected an object of training options")
        for key in set(values) - known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise TrainingError(f"{source}: unknown training option {key!r}{hint}")
        try:
            return cls(**values)
        except TypeError as error:
            raise TrainingError(f"{source}: {error}") from error

    def rate_at(self, step: int, total: int) -> float:
        """Learning rate of one step of 'total'."""
        import math

        ramp = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        left = 1.0 - step / max(total, 1)
        shape = {
            "constant": 1.0,
            "cosine": 0.5 * (1.0 - math.cos(math.pi * left)),
            "wsd": min(1.0, left / 0.2),
        }[self.schedule]
        return self.learning_rate * ramp * shape


def read_config(run: Path) -> TrainConfig:
    """The configuration that a run folder was made with."""
    path = run / "config.json"
    try:
        return TrainConfig.from_json(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise TrainingError(f"{run}: not a run of attar train (no readable config.json: {error.strerror})") from error
