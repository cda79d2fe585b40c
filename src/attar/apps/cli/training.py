"""``attar train``, ``validate``, ``infer`` and ``export``."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import sys
import tempfile
import time
import types
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from attar.apps.cli import common
from attar.errors import AttarError, CheckpointError, ExportError, MissingExtraError, TrainingError
from attar.train.config import LOSSES, SCHEDULES, TrainConfig, read_config

MODEL = click.option("--model", "model_path", metavar="FILE", help="The model.json.")
DATASET_FIELDS = ("dataset", "tfds", "data_dir", "height", "width", "channels", "crop", "limit")
CHOICES = {"loss": LOSSES, "schedule": SCHEDULES}
NAMES = {"compiled": "compile"}  # `compiled` in Python, where compile() is a word of the language


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
    name = "--" + NAMES.get(field.name, field.name).replace("_", "-")
    kind: Any = next((t for t in typing.get_args(hint) if t is not types.NoneType), hint)
    if field.name in CHOICES:
        kind = click.Choice(CHOICES[field.name])
    # None marks an option that was not given, so that --resume can tell; the real default stands in the help.
    shown = "" if field.default is None else f"  [default: {str(field.default).lower() if kind is bool else field.default}]"
    extra: dict[str, Any] = {"type": kind, "default": None, "help": field.metadata["help"] + shown}
    if kind is bool:  # `--bf16`, and the seed's `--tfds true` and `--tfds false`
        extra |= {"is_flag": False, "flag_value": "true", "metavar": "true|false"}
    return click.option(name, field.name, **extra)


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def need_training() -> None:
    """Refuse with the pip command where the training extra is not installed."""
    backend = os.environ.get("KERAS_BACKEND", "torch")
    for package in ("keras", backend):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "train")


@click.command()
@MODEL
@config_options()
@click.option("--run-dir", "-o", default="run", show_default=True, metavar="DIR", help="Folder that everything is written to.")
@click.option("--resume", is_flag=True, help="Go on with the run in --run-dir, with its own options (--epochs may be raised).")
@click.option("--force", "-f", is_flag=True, help="Start over in a --run-dir that already holds a run.")
@click.option("--check", is_flag=True, help="Check the model.json and stop.")
@click.option("--load-from-ckpt-path", metavar="FILE", help="Start from this checkpoint's weights.")
@click.option("--checkpoint-filepath", metavar="FILE", help="Where the best checkpoint goes.  [default: DIR/checkpoints/best.npz]")
@click.option("--log-dir", metavar="DIR", help="Where TensorBoard's files go.  [default: DIR/tensorboard]")
@click.option("--verbosity", type=click.IntRange(0, 2), default=1, show_default=True, help="0 silent, 1 progress bar, 2 a line for each epoch.")
@click.option("--json", "as_json", is_flag=True, help="Print the last epoch's row as JSON.")
def train(
    model_path: str | None,
    run_dir: str,
    resume: bool,
    force: bool,
    check: bool,
    load_from_ckpt_path: str | None,
    checkpoint_filepath: str | None,
    log_dir: str | None,
    verbosity: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Train the codec that a model.json describes.

    Everything goes to one folder: the configuration, history.csv, checkpoints, TensorBoard's files, curves.png,
    regenerated.png and model.svg. Ctrl-C leaves a checkpoint that --resume goes on from.
    """
    run = Path(run_dir)
    if resume:
        config = dataclasses.replace(read_config(run), **_given({"epochs": options["epochs"]}))
        model_path = model_path or str(run / "model.json")
    else:
        config = TrainConfig(**_given(options))
    need_training()
    spec = load_spec(model_path, config.latent_dims)
    if check:
        check_model(spec)
        return
    if not resume and not force and (run / "config.json").exists():
        raise TrainingError(f"{run}: already holds a run: --resume goes on with it, --force starts over, --run-dir names another")
    check_folder(run)
    data = load_data(config, spec)
    if verbosity:
        report_data(data)
    with epoch_report(verbosity, config) as watch:
        from attar.train.trainer import Trainer

        trainer = Trainer(config, spec, data, run, checkpoint_path=checkpoint_filepath, log_dir=log_dir, watch=watch)
        if resume:
            trainer.resume()
        elif load_from_ckpt_path:
            trainer.transfer(load_from_ckpt_path)
        progress = trainer.fit()
    best = min(progress.history, key=lambda row: row["val_loss"])
    if verbosity:
        click.echo(f"best: epoch {int(best['epoch'])}, {epoch_words(best)}; checkpoint {trainer.best_path}", err=True)
    if as_json:
        common.echo_json({**best, "checkpoint": str(trainer.best_path)})


@click.command()
@MODEL
@click.option("--ckpt-path", required=True, metavar="FILE", help="The checkpoint, for example run/checkpoints/best.npz.")
@config_options(*DATASET_FIELDS, "latent_dims", "batch_size", "loss", "weight", "alpha", "lmbda", "seed")
@click.option("--split", type=click.Choice(["validation", "test", "train"]), default="test", show_default=True, help="Images to measure on.")
@click.option("--log-dir", metavar="DIR", help="Write the numbers to TensorBoard's files here.")
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON.")
def validate(
    model_path: str | None, ckpt_path: str, split: str, log_dir: str | None, as_json: bool, **options: Any
) -> None:
    """Measure a checkpoint: loss, PSNR and SSIM, and bytes and bits per pixel of real files.

    What is not given is taken from the configuration that the checkpoint was trained with.
    """
    need_training()
    spec, net, config = load_trained(model_path, ckpt_path, options)
    from attar.train import losses, validate as validation

    data = load_data(config, spec)
    loss = losses.Loss(config.loss, config.weight, config.alpha, config.lmbda)
    row = validation.validate(net, loss, getattr(data, split))
    if log_dir:
        log_scalars(log_dir, {f"{split}/{name}": value for name, value in row.items()})
    if as_json:
        common.echo_json({"split": split, **row})
    else:
        click.echo(
            f"{split}: {row['images']} images, loss {row['loss']:.5f}, PSNR {row['psnr']:.2f} dB, SSIM {row['ssim']:.4f}, "
            f"{row['bytes']:.1f} bytes ({row['bpp']:.3f} bpp) for a whole file"
        )


@click.command()
@MODEL
@click.option("--ckpt-path", required=True, metavar="FILE", help="The checkpoint, for example run/checkpoints/best.npz.")
@config_options("latent_dims")
@click.option("--mode", type=click.Choice(["bundle", "full", "encoder-decoder"]), default="bundle", show_default=True, help="What to export.")
@click.option("--format", "file_format", type=click.Choice(["onnx", "keras", "h5", "saved-model"]), default="onnx", show_default=True, help="Of full and encoder-decoder.")
@click.option("--save-path", required=True, metavar="A[,B]", help="Where it goes; two paths for encoder-decoder.")
@click.option("--name", help="Of the bundle.  [default: the file's name]")
@click.option("--model-version", default="1", show_default=True, help="Of the bundle.")
@click.option("--licence", default="unknown", show_default=True, help="Of the bundle's weights, as an SPDX name.")
@click.option("--description", default="", help="Of the bundle, one sentence.")
@click.option("--half/--full-precision", default=True, show_default=True, help="Store a bundle's weights in float16 where that is harmless.")
@click.option("--force", "-f", is_flag=True, help="Overwrite.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def export(
    model_path: str | None,
    ckpt_path: str,
    mode: str,
    file_format: str,
    save_path: str,
    name: str | None,
    model_version: str,
    licence: str,
    description: str,
    half: bool,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Export a checkpoint for use: a bundle for the codec, the whole network, or encoder and decoder apart.

    An export is refused unless the exported networks reproduce the trained ones.
    """
    paths = [part for part in save_path.split(",") if part]
    for path in paths:
        if Path(path).exists() and not force:
            raise ExportError(f"{path}: exists already; overwrite it with -f")
    if mode != "bundle" and file_format == "saved-model":
        if importlib.util.find_spec("tensorflow") is None:
            raise ExportError("saved-model needs TensorFlow: pip install tensorflow")
        os.environ["KERAS_BACKEND"] = "tensorflow"
    need_training()
    spec, net, _ = load_trained(model_path, ckpt_path, options)
    from attar.train import checkpoint, export as exporting

    if mode == "bundle":
        if len(paths) != 1:
            raise ExportError(f"a bundle is one file, got {len(paths)} paths in --save-path")
        record = checkpoint.load(ckpt_path).record
        done = exporting.to_bundle(
            net,
            paths[0],
            name=name or Path(paths[0]).stem,
            version=model_version,
            licence=licence,
            description=description,
            training=training_summary(record),
            half=half,
        )
    else:
        done = exporting.to_files(net, mode, file_format, paths)
    if as_json:
        common.echo_json({"paths": [str(p) for p in done.paths], "differences": dict(done.differences), "sha256": done.sha256})
    else:
        found = ", ".join(f"{part} {value:.1e}" for part, value in done.differences.items())
        click.echo(f"wrote {', '.join(str(p) for p in done.paths)}; largest difference to the trained network: {found}")


@click.command()
@click.option("--model", required=True, metavar="BUNDLE|EXPORT", help="A bundle (file or name), or what attar export wrote (A or A,B).")
@click.option("--path-to-data", required=True, metavar="IMG|DIR", help="An image, or a folder of images.")
@click.option("--save-dir", default="regenerated_images", show_default=True, metavar="DIR", help="Where the regenerated images go.")
@click.option("--postprocess", type=bool, default=True, show_default=True, help="Clip to [0, 1]; false wraps nothing but keeps what the network says in a .npy beside.")
@click.option("--channels", type=click.Choice(["1", "3"]), help="1 gray or 3 RGB; taken from the model where it says.")
@click.option("--height", type=click.IntRange(1), help="Pixels that images are resized to; taken from the model where it says.")
@click.option("--width", type=click.IntRange(1), help="Pixels that images are resized to; taken from the model where it says.")
@click.option("--force", "-f", is_flag=True, help="Overwrite.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON line for each image.")
def infer(
    model: str,
    path_to_data: str,
    save_dir: str,
    postprocess: bool,
    channels: str | None,
    height: int | None,
    width: int | None,
    force: bool,
    as_json: bool,
) -> None:
    """Regenerate images through a bundle or an exported network, and measure what was lost."""
    from attar.apps import inference

    inference.run(
        model,
        path_to_data,
        save_dir,
        postprocess=postprocess,
        channels=int(channels) if channels else None,
        size=(height, width),
        force=force,
        as_json=as_json,
    )


def check_folder(path: Path) -> None:
    """Refuse a folder that cannot be written before any work is done."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise AttarError(f"{path}: cannot be written: {error.strerror or error}") from error


def load_spec(path: str | None, latent_dims: int | None) -> Any:
    """Read a model.json against the layers that exist, and fill in its latent dimensions (50, where nobody says)."""
    from attar import spec as specs
    from attar.train.catalogue import catalogue

    if path is None:
        raise click.UsageError("--model FILE is missing: the model.json")
    spec = specs.load(path, catalogue())
    if latent_dims is not None:
        return spec.with_latent_dims(latent_dims)
    return spec if spec.latent_dims is not None else spec.with_latent_dims(50)


def check_model(spec: Any) -> None:
    """Build the network of a checked file and say what it is."""
    from attar.train import network

    net = network.build(spec, seed=0)
    geometry, sizes = network.geometry(net), network.parameters(net)
    takes = f"{geometry.size[1]} x {geometry.size[0]} pixels" if geometry.size else f"any size, padded to {geometry.multiple}"
    click.echo(
        f"{spec.name}: sound; takes images of {spec.input_shape[2]} channels, {takes}; latent {list(geometry.latent)}; "
        + ", ".join(f"{part} {count:,} weights" for part, count in sizes.items())
    )


def load_trained(model_path: str | None, ckpt_path: str, options: dict[str, Any]) -> tuple[Any, Any, TrainConfig]:
    """The model, the network and the configuration of a checkpoint, with what was given on the command line over it."""
    from attar import spec as specs
    from attar.train import checkpoint, export as exporting

    record = checkpoint.load(ckpt_path).record
    try:
        trained = TrainConfig(**record["config"])
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{ckpt_path}: holds no configuration that this version knows: {error}") from error
    config = dataclasses.replace(trained, **_given(options))
    if model_path is None:
        spec = specs.parse(record["model"], ckpt_path)
    else:
        spec = load_spec(model_path, config.latent_dims or specs.parse(record["model"], ckpt_path).latent_dims)
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
    )


def report_data(data: Any) -> None:
    """Say what was loaded, and name every file that was skipped."""
    click.echo(f"data: {data.description}", err=True)
    for line in data.skipped:
        click.echo(f"skipped: {line}", err=True)


def training_summary(record: Any) -> dict[str, Any]:
    """What a bundle says of its training."""
    progress, validation = record.get("progress") or {}, record.get("validation") or {}
    config = record.get("config") or {}
    kept = ("loss", "alpha", "lmbda", "batch_size", "learning_rate", "schedule", "seed")
    rows = progress.get("history") or [{}]
    return {
        "dataset": str(record.get("dataset", "")),
        "epochs": progress.get("epoch", 0),
        "steps": rows[-1].get("step", 0),
        **{key: config[key] for key in kept if key in config},
        **{f"validation_{key}": round(float(value), 5) for key, value in validation.items()},
    }


def log_scalars(log_dir: str, scalars: dict[str, float]) -> None:
    """Write numbers to TensorBoard's files."""
    from torch.utils.tensorboard import SummaryWriter

    check_folder(Path(log_dir))
    with SummaryWriter(log_dir) as writer:
        for name, value in scalars.items():
            writer.add_scalar(name, value, 0)


def epoch_words(row: dict[str, float]) -> str:
    """One epoch in words."""
    return (
        f"loss {row['val_loss']:.5f}, PSNR {row['val_psnr']:.2f} dB, SSIM {row['val_ssim']:.4f}, "
        f"{row['val_bytes']:.1f} bytes of latents per image"
    )


@contextmanager
def epoch_report(verbosity: int, config: TrainConfig) -> Iterator[Callable[[Any], None]]:
    """What a run says while it goes on: a bar (verbosity 1, on a terminal), a line for each epoch, or nothing."""
    if verbosity == 0:
        yield lambda progress: None
        return
    shown = [0]

    def lines(progress: Any) -> None:
        for row in progress.history[shown[0] :]:
            speed = row["step"] / max(row["seconds"], 1e-9)
            click.echo(f"epoch {int(row['epoch'])}/{config.epochs}: {epoch_words(row)} ({speed:.0f} steps/s)", err=True)
        shown[0] = len(progress.history)

    if verbosity == 2 or not sys.stderr.isatty():
        yield lines
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("epoch {task.fields[epoch]}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[now]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("steps", total=None, epoch="1", now="")
        last = [0.0]

        def watch(progress: Any) -> None:
            if time.monotonic() - last[0] < 0.1:
                return
            last[0] = time.monotonic()
            means = progress.means()
            bar.update(
                task,
                total=config.epochs * progress.steps_per_epoch,
                completed=progress.epoch * progress.steps_per_epoch + progress.batch,
                epoch=f"{progress.epoch + 1}/{config.epochs}",
                now=f"loss {means['loss']:.4f}  {means['psnr']:.2f} dB  SSIM {means['ssim']:.4f}" if progress.images else "",
            )
            lines(progress)

        yield watch


