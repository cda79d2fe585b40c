"""What the training commands share: options made of a configuration; loading models, checkpoints, data."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from attar.errors import AttarError, CheckpointError, MissingExtraError, SpecError, TrainingError
from attar.train.config import CHOICES, TrainConfig

MODEL = click.option("--model", "model_path", metavar="FILE", help="The model.json.")
DATASET_FIELDS = ("dataset", "tfds", "data_dir", "height", "width", "channels", "crop", "limit")
NAMES = {"compiled": "compile"}  # `compiled` in Python, where compile() is a word of the language
BACKENDS = ("torch", "tensorflow", "jax")
DEFAULT_LATENT_DIMS = 50


def option_name(field: str) -> str:
    """The option that stands for a field of :class:`TrainConfig`."""
    return "--" + NAMES.get(field, field).replace("_", "-")


def config_options(*only: str) -> Callable[[Any], Any]:
    """Options made of the fields of :class:`TrainConfig`: one description of a run, not two."""
    hints = typing.get_type_hints(TrainConfig)

    def decorate(command: Any) -> Any:
        for field in reversed(dataclasses.fields(TrainConfig)):
            if not only or field.name in only:
                command = _option(field, hints[field.name])(command)
        return command

    return decorate


def _option(field: Any, hint: Any) -> Callable[[Any], Any]:
    kind: Any = next((t for t in typing.get_args(hint) if t is not types.NoneType), hint)
    default = str(field.default).lower() if kind is bool else field.default
    if field.name in CHOICES:
        kind = click.Choice(CHOICES[field.name])
    # None marks an option that was not given, so that --resume can tell; the real default stands in the help.
    shown = "" if field.default is None else f"  [default: {default}]"
    extra: dict[str, Any] = {"type": kind, "default": None, "help": field.metadata["help"] + shown}
    if kind is bool:  # `--bf16`, and the seed's `--tfds true` and `--tfds false`
        extra |= {"is_flag": False, "flag_value": "true", "metavar": "true|false"}
    return click.option(option_name(field.name), field.name, **extra)


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that stand on the command line."""
    return {name: value for name, value in options.items() if value is not None}


def configured(options: Mapping[str, Any], base: TrainConfig | None = None) -> TrainConfig:
    """A configuration of the options given, over ``base``; what is out of range is a usage error."""
    values = given(options)
    try:
        return TrainConfig(**values) if base is None else dataclasses.replace(base, **values)
    except TrainingError as error:
        names = "|".join(field.name for field in dataclasses.fields(TrainConfig))
        text = re.sub(rf"\b({names})(?= is )", lambda match: option_name(match[1]), str(error))
        raise click.UsageError(text) from error


def resumed(config: TrainConfig, options: Mapping[str, Any]) -> TrainConfig:
    """The configuration of a run that goes on: its own, of which only the epochs may change."""
    for name, value in given(options).items():
        if name != "epochs" and value != getattr(config, name):
            raise click.UsageError(
                f"--resume goes on with the run's own options: {option_name(name)} is "
                f"{getattr(config, name)} there, not {value} (only --epochs may change)"
            )
    return configured({"epochs": options["epochs"]}, config)


def need_training(prefer: str | None = None, *, tfds: bool | None = False) -> None:
    """Refuse with the pip command where Keras or its backend is not installed.

    ``prefer``: a backend that the command works best with, taken where it can be and Keras is not loaded.
    Keras and tensorboard load TensorFlow wherever it is installed, with seconds and chatter, though another
    backend computes; this process does without, unless ``tfds`` may want it to prepare a data set.
    """
    if prefer and "keras" not in sys.modules and importlib.util.find_spec(prefer) is not None:
        os.environ["KERAS_BACKEND"] = prefer
    backend = os.environ.get("KERAS_BACKEND") or "torch"
    if backend not in BACKENDS:
        raise AttarError(f"KERAS_BACKEND is {backend!r}, expected one of {', '.join(BACKENDS)}")
    if importlib.util.find_spec("keras") is None:
        raise MissingExtraError("keras", "train")
    if importlib.util.find_spec(backend) is None:
        if backend == "torch":
            raise MissingExtraError(backend, "train")
        raise AttarError(f"KERAS_BACKEND is {backend!r}, which is not installed: pip install {backend}")
    if backend != "tensorflow" and not tfds:
        sys.modules.setdefault("tensorflow", None)  # type: ignore[arg-type] # as if it were not installed


def load_spec(path: str | None, latent_dims: int | None) -> Any:
    """Read a model.json against the layers that exist; latent dimensions that nobody gives are 50."""
    from attar import spec as specs
    from attar.train.catalogue import catalogue

    if path is None:
        raise click.UsageError("--model FILE is missing: the model.json")
    spec = specs.load(path, catalogue())
    if latent_dims is not None:
        return spec.with_latent_dims(latent_dims)
    try:
        return spec if spec.latent_dims is not None else spec.with_latent_dims(DEFAULT_LATENT_DIMS)
    except SpecError:  # a latent layer of another kind, which has no size to fill in
        return spec


def check_adversarial(spec: Any, options: Mapping[str, Any]) -> None:
    """Refuse options of a discriminator that the model.json does not have."""
    named = [name for name in given(options) if name.startswith("adversarial")]
    if named and "discriminator" not in spec.blocks:
        raise click.UsageError(
            f"{option_name(named[0])}: {spec.name} has no block discriminator to train with"
        )


@contextmanager
def naming(source: str) -> Iterator[None]:
    """Faults that are found when a model is built name its file."""
    try:
        yield
    except SpecError as error:
        raise SpecError(source, error.faults) from error


def load_trained(
    model_path: str | None, ckpt_path: str, options: Mapping[str, Any]
) -> tuple[Any, Any, TrainConfig]:
    """The model, network and configuration of a checkpoint, with what the command line gives over it."""
    from attar import spec as specs
    from attar.train import checkpoint
    from attar.train import export as exporting

    record = checkpoint.load(ckpt_path).record
    try:
        trained = TrainConfig.from_dict(record["config"], ckpt_path)
    except TrainingError as error:
        raise CheckpointError(f"{error}: damaged, or of a later version") from error
    config = configured(options, trained)
    latent_dims = options.get("latent_dims")
    if model_path is None:
        spec = specs.parse(record["model"], f"{ckpt_path}, its model")
        spec = spec if latent_dims is None else spec.with_latent_dims(latent_dims)
    else:
        own = specs.parse(record["model"], f"{ckpt_path}, its model").latent_dims
        spec = load_spec(model_path, latent_dims if latent_dims is not None else own)
    with naming(model_path or f"{ckpt_path}, its model"):
        net, _ = exporting.load_network(spec, ckpt_path)
    return spec, net, config


def load_data(config: TrainConfig, spec: Any) -> Any:
    """The data set of a run; sizes that are not given are the model's."""
    from attar.train import datasets

    height, width, channels = spec.input_shape
    if config.crop is not None:
        height, width = None, None
    return datasets.load(
        config.dataset,
        tfds=config.tfds,
        data_dir=config.data_dir,
        height=config.height or height,
        width=config.width or width,
        channels=config.channels or channels,
        crop=config.crop,
        seed=config.seed,
        limit=config.limit,
        shift=config.shift,
        flip=config.flip,
        shrink=config.shrink,
    )


def without_folder(description: str, dataset: str) -> str:
    """A data set's description with only the last part of its path: where it lay is nobody's business."""
    return description.replace(dataset, Path(dataset).name or "data") if dataset else description


def training_summary(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a bundle says of its training."""
    progress, config = record["progress"], record["config"]
    kept = ("loss", "weight", "alpha", "lmbda", "batch_size", "learning_rate", "schedule", "seed")
    try:
        rows = progress.get("history") or [{}]
        return {
            "dataset": without_folder(record["dataset"], config.get("dataset", "")),
            "epochs": progress.get("epoch", 0),
            "steps": rows[-1].get("step", 0),
            **{key: config[key] for key in kept if key in config},
            **{
                f"validation_{key}": round(float(value), 5)
                for key, value in (record.get("validation") or {}).items()
            },
        }
    except (TypeError, ValueError, AttributeError, KeyError, IndexError) as error:
        raise CheckpointError(f"the checkpoint's record of its training is damaged: {error}") from error
