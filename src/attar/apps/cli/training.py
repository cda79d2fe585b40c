"""``attar train``, ``validate``, ``infer`` and ``export``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from attar.apps.cli import common, runs
from attar.apps.cli.progress import epoch_line, epoch_report, report_best, report_data
from attar.apps.cli.runs import MODEL, config_options, load_trained, need_training, training_summary
from attar.errors import ExportError
from attar.train.config import TrainConfig, read_config

__all__ = ["export", "infer", "load_trained", "need_training", "train", "training_summary", "validate"]

JSON = click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON.")
FORCE = click.option("--force", "-f", is_flag=True, help="Overwrite.")
CHECKPOINT = click.option(
    "--ckpt-path", required=True, metavar="FILE", help="The checkpoint, such as run/checkpoints/best.npz."
)


@click.command()
@MODEL
@config_options()
@click.option(
    "--run-dir", "-o", default="run", show_default=True, metavar="DIR", help="Where everything is written."
)
@click.option("--resume", is_flag=True, help="Go on with the run in --run-dir (--epochs may be raised).")
@click.option("--force", "-f", is_flag=True, help="Start over in a --run-dir that already holds a run.")
@click.option("--check", is_flag=True, help="Check the model.json and stop.")
@click.option("--load-from-ckpt-path", metavar="FILE", help="Start from this checkpoint's weights.")
@click.option(
    "--checkpoint-filepath",
    metavar="FILE",
    help="Where the best checkpoint goes (say so again with --resume).  [default: DIR/checkpoints/best.npz]",
)
@click.option("--log-dir", metavar="DIR", help="Where TensorBoard's files go.  [default: DIR/tensorboard]")
@click.option(
    "--verbosity",
    type=click.IntRange(0, 2),
    default=1,
    show_default=True,
    help="0 silent, 1 progress bar, 2 a line for each epoch.",
)
@click.option(
    "--engine",
    type=click.Choice(["processes", "ray"]),
    default="processes",
    show_default=True,
    help="'processes': this one, or those that torchrun started; 'ray': --workers that Ray Train starts.",
)
@click.option("--workers", type=click.IntRange(1), help="Processes of a run on Ray.  [default: 2]")
@click.option("--address", help="Of a Ray cluster; without it, one is started here.")
@click.option("--json", "as_json", is_flag=True, help="Print the best epoch's row as JSON.")
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
    engine: str,
    workers: int | None,
    address: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Train the codec that a model.json describes.

    Everything goes to one folder: the configuration, history.csv, checkpoints, TensorBoard's files,
    curves.png, regenerated.png and model.svg. Ctrl-C leaves a checkpoint that --resume goes on from.
    """
    if resume and (force or load_from_ckpt_path):
        raise click.UsageError("--resume goes on with a run: --force and --load-from-ckpt-path begin one")
    if engine != "ray" and (workers or address):
        raise click.UsageError("--workers and --address are of a Ray cluster: give --engine ray with them")
    run = Path(run_dir)
    known = read_config(run) if resume and (run / "config.json").exists() else None
    need_training(tfds=known.tfds if known else options["tfds"])
    if check:
        config = runs.resumed(known, options) if known else runs.configured(options)
        model = model_path or (str(run / "model.json") if known else None)
        check_model(runs.load_spec(model, config.latent_dims), str(model), config)
        return
    from attar.apps import jobs
    from attar.train.parallel import joined

    places = {"best": checkpoint_filepath, "log_dir": log_dir, "weights": load_from_ckpt_path}
    job = jobs.Job(run, options, model_path, resume, force, **places)
    if engine == "ray":
        from attar.apps import cluster

        say = (lambda row: click.echo(epoch_line(row), err=True)) if verbosity else (lambda row: None)
        best = cluster.train(job, cluster.Cluster(workers or 2, address), say)
        report_best(best, verbosity, as_json)
        return
    with joined() as team:
        shown = verbosity if team.leads else 0
        trainer = jobs.prepare(job, team, report_data if shown else lambda data: None)
        with epoch_report(shown, trainer.config) as trainer.watch:
            trainer.fit()
        if team.leads:
            best = {**trainer.kept(), "checkpoint": str(trainer.best_path)}
            report_best(best, verbosity, as_json)


@click.command()
@MODEL
@CHECKPOINT
@config_options(*runs.DATASET_FIELDS, "latent_dims", "batch_size", "loss", "weight", "alpha", "lmbda", "seed")
@click.option(
    "--split",
    type=click.Choice(["validation", "test", "train"]),
    default="test",
    show_default=True,
    help="Images to measure on.",
)
@click.option("--log-dir", metavar="DIR", help="Write the numbers to TensorBoard's files here.")
@JSON
def validate(
    model_path: str | None, ckpt_path: str, split: str, log_dir: str | None, as_json: bool, **options: Any
) -> None:
    """Measure a checkpoint: loss, PSNR and SSIM, and bytes and bits per pixel of real files.

    What is not given is taken from the configuration that the checkpoint was trained with.
    """
    need_training(prefer="torch", tfds=options["tfds"])  # whose networks export to ONNX
    spec, net, config = load_trained(model_path, ckpt_path, options)
    from attar.train import losses
    from attar.train import validate as validation
    from attar.train.journal import check_folder, log_scalars
    from attar.train.measuring import check_images

    if log_dir:
        check_folder(Path(log_dir))
    data = runs.load_data(config, spec)
    check_images(net, data)
    loss = losses.Loss(config.loss, config.weight, config.alpha, config.lmbda)
    row = validation.validate(net, loss, getattr(data, split))
    if log_dir:
        log_scalars(
            Path(log_dir), {f"{split}/{name}": value for name, value in row.items() if value is not None}
        )
    if as_json:
        common.echo_json({"split": split, **row})
    else:
        psnr = "no PSNR (all identical)" if row["psnr"] is None else f"PSNR {row['psnr']:.2f} dB"
        click.echo(
            f"{split}: {row['images']} images, loss {row['loss']:.5f}, {psnr}, SSIM {row['ssim']:.4f}, "
            f"{row['bytes']:.1f} bytes ({row['bpp']:.3f} bpp) for a whole file"
        )


@click.command()
@MODEL
@CHECKPOINT
@config_options("latent_dims")
@click.option(
    "--mode",
    type=click.Choice(["bundle", "full", "encoder-decoder"]),
    default="bundle",
    show_default=True,
    help="What to export.",
)
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["onnx", "keras", "h5", "saved-model"]),
    default="onnx",
    show_default=True,
    help="Of full and encoder-decoder.",
)
@click.option(
    "--save-path", required=True, metavar="A[,B]", help="Where it goes; two paths for encoder-decoder."
)
@click.option("--name", help="Of the bundle.  [default: the file's name]")
@click.option("--model-version", default="1", show_default=True, help="Of the bundle.")
@click.option(
    "--licence", default="unknown", show_default=True, help="Of the bundle's weights, an SPDX name."
)
@click.option("--description", default="", help="Of the bundle, one sentence.")
@click.option(
    "--half/--full-precision",
    default=True,
    show_default=True,
    help="Store a bundle's weights in float16 where that is harmless.",
)
@FORCE
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
    if mode == "bundle" and (len(paths) != 1 or file_format != "onnx"):
        raise click.UsageError("a bundle is one file of its own format: one path in --save-path, no --format")
    for path in paths:
        if Path(path).exists() and not force:
            raise ExportError(f"{path}: exists already; overwrite it with -f")
    need_training(prefer="tensorflow" if file_format == "saved-model" else "torch")
    _, net, _ = load_trained(model_path, ckpt_path, options)
    from attar.train import checkpoint
    from attar.train import export as exporting

    if mode == "bundle":
        done = exporting.to_bundle(
            net,
            paths[0],
            name=name or Path(paths[0]).stem,
            version=model_version,
            licence=licence,
            description=description,
            training=training_summary(checkpoint.load(ckpt_path).record),
            half=half,
        )
    else:
        done = exporting.to_files(net, mode, file_format, paths)
    written = [str(path) for path in done.paths]
    if as_json:
        common.echo_json({"paths": written, "differences": dict(done.differences), "sha256": done.sha256})
    else:
        found = ", ".join(f"{part} {value:.1e}" for part, value in done.differences.items())
        click.echo(f"wrote {', '.join(written)}; largest difference to the trained network: {found}")


@click.command()
@click.option(
    "--model",
    required=True,
    metavar="BUNDLE|EXPORT",
    help="A bundle (file or name), or what attar export wrote (A or A,B).",
)
@click.option("--path-to-data", required=True, metavar="IMG|DIR", help="An image, or a folder of images.")
@click.option(
    "--save-dir",
    default="regenerated_images",
    show_default=True,
    metavar="DIR",
    help="Where the regenerated images go.",
)
@click.option(
    "--postprocess",
    type=bool,
    default=True,
    show_default=True,
    help="Clip to 0..1; false also keeps what the network gives, as floats in a .npy beside each image.",
)
@click.option(
    "--channels", type=click.Choice(["1", "3"]), help="1 gray or 3 RGB; taken from the model where it says."
)
@click.option(
    "--height",
    type=click.IntRange(1, 1 << 16),
    help="Pixels to resize to; taken from the model where it says.",
)
@click.option(
    "--width",
    type=click.IntRange(1, 1 << 16),
    help="Pixels to resize to; taken from the model where it says.",
)
@FORCE
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


def check_model(spec: Any, source: str, config: TrainConfig) -> None:
    """Build the networks of a checked file and say what they are."""
    from attar.train import adversarial, network

    with runs.naming(source):
        net = network.build(spec, seed=0)
        judge = adversarial.build(spec) if adversarial.has_one(spec, config) else None
    geometry, sizes = network.geometry(net), network.parameters(net)
    if judge is not None:
        sizes["discriminator"] = network.size(judge)
    takes = f"any size, padded to {geometry.multiple}"
    if geometry.size:
        takes = f"{geometry.size[1]} x {geometry.size[0]} pixels"
    click.echo(
        f"{spec.name}: sound; takes images of {spec.input_shape[2]} channels, {takes}; "
        f"latent {list(geometry.latent)}; "
        + ", ".join(f"{part} {count:,} weights" for part, count in sizes.items())
    )
