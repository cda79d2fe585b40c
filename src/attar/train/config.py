"""Everything that decides a training run, as one frozen record that is saved inside the run."""

from __future__ import annotations

import dataclasses
import json
import math
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from attar import plainjson
from attar.errors import TrainingError

CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "schedule": ("constant", "cosine", "wsd"),
        "loss": ("ssim-l1", "mse", "ms-ssim"),
        "optimizer": ("adam", "soap"),
        "adversarial": ("hinge", "non-saturating"),
        "networks": ("all", "prior", "synthesis", "encoder"),
    }
)
COUNT, SIZE, NONNEGATIVE = (1, None), (1, 1 << 16), (0, None)
RANGES: Mapping[str, tuple[float, float | None]] = MappingProxyType(
    {
        **dict.fromkeys(("batch_size", "micro_batch", "epochs", "steps_per_epoch", "limit"), COUNT),
        **dict.fromkeys(("crop", "height", "width", "latent_dims"), SIZE),
        **dict.fromkeys(("weight", "lmbda", "adversarial_weight", "clip_norm", "save_minutes"), NONNEGATIVE),
        **dict.fromkeys(("warmup", "patience", "shift", "adversarial_warmup"), NONNEGATIVE),
        **dict.fromkeys(("alpha", "balance", "shrink"), (0, 1)),
        "seed": (0, 2**32 - 1),
    }
)
WORDS: Mapping[type, str] = MappingProxyType(
    {int: "a whole number", float: "a finite number", bool: "true or false", str: "text"}
)


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
    shrink: float = option(
        1.0,
        "Smallest scale of a random crop: it is shrunk by a random factor between this and 1. Takes a 'crop'.",
    )
    limit: int | None = option(
        None,
        "Largest number of images taken from the data set; None takes all.",
    )
    latent_dims: int | None = option(
        None,
        "Units or filters of 'compressed_representation'; None: the file's, or 50 if it leaves them open.",
    )
    batch_size: int = option(
        32,
        "Images in one step, of all processes together.",
    )
    micro_batch: int | None = option(
        None,
        "Images of a step that a process works on at once: less memory, the same gradient; None: all (PyTorch only).",
    )
    epochs: int = option(
        15,
        "Passes over the training images (or stretches of 'steps_per_epoch').",
    )
    steps_per_epoch: int | None = option(
        None,
        "Steps between two validations; None is one pass over the training images.",
    )
    optimizer: str = option(
        "adam",
        "'adam', or 'soap': fewer steps for networks of 1x1 convolutions, each a little dearer (PyTorch only).",
    )
    learning_rate: float = option(
        1e-3,
        "Peak learning rate.",
    )
    schedule: str = option(
        "cosine",
        "'constant', 'cosine' (to zero over all epochs) or 'wsd' (constant, to zero in the last fifth).",
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
    balance: float = option(
        0.0,
        "Divide each image's gradient by its loss to this power, 0 to 1; with 1, a per cent of any counts the same.",
    )
    adversarial: str = option(
        "hinge",
        "Adversarial loss, of a model.json with a discriminator: 'hinge' or 'non-saturating'.",
    )
    adversarial_weight: float = option(
        0.01,
        "Factor of the adversarial loss in the distortion; 0 trains without the discriminator.",
    )
    adversarial_warmup: int = option(
        0,
        "Steps in which the distortion trains alone, before the discriminator takes part.",
    )
    networks: str = option(
        "all",
        "What is trained: 'all'; 'prior', on rounded latents; 'synthesis', on latents that stay; 'encoder': the rest.",
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
        faults = self._wrong_types() or [*self._out_of_range()]
        if faults:
            raise TrainingError("; ".join(faults))

    def _wrong_types(self) -> list[str]:
        """Values that JSON may hold and the field may not; a whole number will do for a float."""
        faults = []
        for name, hint in typing.get_type_hints(type(self)).items():
            value, kinds = getattr(self, name), typing.get_args(hint) or (hint,)
            fits = type(value) in kinds or (float in kinds and type(value) is int)
            if not fits or (type(value) is float and not math.isfinite(value)):
                faults.append(f"{name} is {value!r}, expected {WORDS[kinds[0]]}")
        return faults

    def _out_of_range(self) -> Iterator[str]:
        for name, (least, most) in RANGES.items():
            value = getattr(self, name)
            if value is not None and (value < least or (most is not None and value > most)):
                expected = f"at least {least}" if most is None else f"{least} to {most}"
                yield f"{name} is {value}, expected {expected}"
        if not 0 < self.learning_rate < 10:
            yield f"learning_rate is {self.learning_rate}, expected above 0 and below 10"
        if not 0 <= self.average < 1:
            yield f"average is {self.average}, expected from 0 to below 1"
        if self.channels not in (None, 1, 3):
            yield f"channels is {self.channels}, expected 1 or 3"
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                yield f"{name} is {getattr(self, name)!r}, expected one of {', '.join(choices)}"

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
            values, faults = plainjson.decode(text)
        except plainjson.NotPlainError as error:
            raise TrainingError(f"{source}: {error}") from error
        if faults:
            raise TrainingError(f"{source}: {'; '.join(faults)}")
        return cls.from_dict(values, source)

    @classmethod
    def from_dict(cls, values: Any, source: str) -> TrainConfig:
        """The record from its fields by name. Raises TrainingError as :meth:`from_json` does."""
        known = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(values, dict):
            raise TrainingError(f"{source}: expected an object of training options")
        for key in sorted(set(values) - known):
            near = plainjson.nearest(key, known)
            hint = f" (did you mean {near!r}?)" if near else ""
            raise TrainingError(f"{source}: unknown training option {plainjson.show(key)}{hint}")
        try:
            return cls(**values)
        except TrainingError as error:
            raise TrainingError(f"{source}: {error}") from error

    def rate_at(self, step: int, total: int) -> float:
        """Learning rate of one step of 'total'."""
        ramp = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        left = max(0.0, 1.0 - step / max(total, 1))
        shape = {
            "constant": 1.0,
            "cosine": 0.5 * (1.0 - math.cos(math.pi * left)),
            "wsd": min(1.0, left / 0.2),
        }[self.schedule]
        return self.learning_rate * ramp * shape


def read_config(run: Path) -> TrainConfig:
    """The configuration that a run folder was made with.

    Raises:
        TrainingError: if the folder holds no run.
    """
    path = run / "config.json"
    try:
        text = plainjson.read(path)
    except plainjson.NotPlainError as error:
        raise TrainingError(f"{run}: not a run of attar train: {path.name} {error}") from error
    return TrainConfig.from_json(text, str(path))
