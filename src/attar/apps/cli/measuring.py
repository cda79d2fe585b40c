"""``attar benchmark`` and ``attar compare``."""

from __future__ import annotations

import importlib.util
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from attar.apps.cli import common
from attar.errors import AttarError, MissingExtraError

if TYPE_CHECKING:
    from attar.codec.images import Picture
    from attar.measure.benchmark import Plan
    from attar.measure.curves import Curve

__all__ = ["benchmark", "compare"]

BEST_CHECKPOINT = Path("checkpoints") / "best.npz"
DEFAULT_CODECS = ("jpeg", "webp", "avif", "jxl")
LABELS = {
    "psnr": "PSNR",
    "psnr_y": "PSNR of luma",
    "psnr_summed": "PSNR, channels summed",
    "ssim": "SSIM",
    "ssim_y": "SSIM of luma",
    "ms_ssim": "MS-SSIM",
    "ms_ssim_y": "MS-SSIM of luma",
}


@click.command()
@click.argument("reference", metavar="A")
@click.argument("other", metavar="B")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def compare(reference: str, other: str, as_json: bool) -> None:
    """Compare image B with the original A: PSNR, SSIM and MS-SSIM, and the bits per pixel of B's file.

    Either may be an image or a .attar file, whose bundle must be installed.
    """
    from attar.apps.comparing import compare_pictures

    (original, _), (decoded, size) = _picture(reference), _picture(other)
    row = compare_pictures(original, decoded, names=(reference, other), size=size)
    if as_json:
        common.echo_json(row)
        return
    pixels = f"{row['width']} x {row['height']}"
    click.echo(f"{'Size':22} {pixels}, {size:,} bytes in {other} ({row['bpp']:.3f} bpp)")
    for column, label in LABELS.items():
        click.echo(f"{label:22} {_shown(column, row[column])}")


@click.command()
@click.argument("inputs", nargs=-1, required=True, metavar="IMAGES...")
@click.option(
    "--codecs",
    multiple=True,
    metavar="LIST",
    help="Separated by commas: jpeg, webp, avif, jxl, attar:NAME, attar:FILE, attar-e5:NAME, the folder of a training "
    "run, ext:ENCODE :: DECODE (alone in its --codecs), LABEL=CODEC, ...  [repeatable; default: jpeg,webp,avif,jxl "
    "and installed bundles for any size]",
)
@click.option("-o", "--output", required=True, metavar="DIR", help="Where rows.csv and the report go.")
@click.option(
    "--qualities",
    multiple=True,
    metavar="CODEC=Q,Q,...",
    help="Measure a codec at these instead of its own choice.  [repeatable]",
)
@click.option(
    "--published",
    multiple=True,
    metavar="FILE|DIR",
    help="Curves in CompressAI's JSON layout, drawn beside the measured ones.  [repeatable]",
)
@click.option(
    "--reference",
    metavar="NAME",
    help="What BD-rates are against.  [default: a published VTM, else the first codec]",
)
@click.option(
    "--min-overlap",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Refuse a BD-rate where less of the shorter curve is shared.",
)
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True, help="Timed runs each.")
@click.option(
    "-j",
    "--jobs",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    help="Images at a time; 0: one per core.",
)
@click.option("--pictures/--no-pictures", default=True, help="Crops of every image at equal bytes.")
@click.option("-f", "--force", is_flag=True, help="Use a folder that holds other things.")
@click.option("--quiet", is_flag=True, help="Say nothing but errors.")
@click.option("--json", "as_json", is_flag=True, help="The report's document on stdout.")
def benchmark(
    inputs: tuple[str, ...],
    codecs: tuple[str, ...],
    output: str,
    qualities: tuple[str, ...],
    published: tuple[str, ...],
    reference: str | None,
    jobs: int,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure codecs on images (files or folders): RD curves, BD-rates, times, one report.

    Interrupted, it goes on where it was when the same command is given again: what rows.csv holds is not
    measured twice.
    """
    _need_measure()
    from attar.measure import benchmark as bench
    from attar.measure import gallery, report
    from attar.measure.curves import read_published

    folder = Path(output)
    _check_folder(folder, options["force"])
    others = read_published(published)
    plan = _plan(common.expand(inputs), codecs, qualities, folder)
    _check_reference(reference, plan, others)
    for absent in plan.absent:
        click.echo(f"attar: {absent.name} is absent: {absent.reason}", err=True)
    for row in plan.unreadable:
        click.echo(f"attar: {row.error}", err=True)
    command = shlex.join(["attar", *sys.argv[1:]])
    with _steps(plan.size, "benchmark", quiet) as step:
        rows = bench.run(
            plan,
            folder,
            repeats=options["repeats"],
            jobs=jobs or os.cpu_count() or 1,
            command=command,
            progress=step,
        )
    measured = report.Measured(rows, plan.absent, others, reference, options["min_overlap"], command)
    anchors = plan.anchors if options["pictures"] else ()
    with _steps(min(len(plan.sources), gallery.MOST_SHEETS), "pictures", quiet) as step:
        summary = report.write(measured, folder, anchors=anchors, progress=step)
    if as_json:
        common.echo_json(summary)
    elif not quiet:
        _print_table(summary)
        click.echo(f"report: {folder / 'report.html'}", err=True)
    if failed := len(summary["failed"]):
        click.echo(f"attar: {failed} of {len(rows)} measurements failed; the report names them", err=True)
        raise click.exceptions.Exit(1)


def _picture(name: str) -> tuple[Picture, int]:
    """The picture in an image or .attar file, and the file's bytes."""
    from attar.codec import images
    from attar.codec.container import MAGIC
    from attar.codec.shelf import Shelf

    data = common.read_input(name)
    try:
        picture = Shelf().for_file(data).decode(data) if data.startswith(MAGIC) else images.read(data)
    except AttarError as error:
        click.echo(f"attar: {common.named_error(name, error)}", err=True)
        raise click.exceptions.Exit(error.exit_code) from error
    return picture, len(data)


def _shown(column: str, value: Any) -> str:
    if value is None:
        return "- (the image is too small)"
    if isinstance(value, str):
        return value
    return f"{value:.2f} dB" if column.startswith("psnr") else f"{value:.5f}"


def _need_measure() -> None:
    for package in ("matplotlib", "bjontegaard"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "measure")


def _check_folder(folder: Path, force: bool) -> None:
    if force or not folder.is_dir() or (folder / "rows.csv").exists() or not any(folder.iterdir()):
        return
    raise click.UsageError(
        f"{folder} is not empty and holds no rows.csv of a benchmark: name another folder, or use it with -f"
    )


def _plan(inputs: Sequence[str], codecs: Sequence[str], qualities: Sequence[str], folder: Path) -> Plan:
    """The plan; what is wrong with the command line is a usage error."""
    from attar.measure import benchmark as bench
    from attar.measure.anchors import split_names

    names = split_names(codecs) if codecs else [*DEFAULT_CODECS, *_installed()]
    names = [_exported(name, folder) for name in names]
    try:
        return bench.plan(inputs, names, dict(map(_quality, qualities)))
    except MissingExtraError:
        raise
    except AttarError as error:
        raise click.UsageError(str(error)) from error


def _installed() -> list[str]:
    """Installed bundles that take any size; they can be measured on whatever is given."""
    from attar.codec import bundle

    found = []
    for name, path in bundle.installed().items():
        try:
            fits = bundle.read(path).manifest.size is None
        except AttarError:
            fits = True  # the plan then names it as absent, with the reason
        if fits:
            found.append(f"attar:{name}")
    return found


def _exported(name: str, folder: Path) -> str:
    """The name; for a training run's folder that of a bundle of its best checkpoint, made beside the report."""
    label, _, plain = name.rpartition("=")
    run = Path(plain.removeprefix("attar:"))
    best = run / BEST_CHECKPOINT
    if not best.is_file():
        return name
    from attar.apps.cli import training

    training.need_training()
    from attar.train import checkpoint, export

    _, net, _ = training.load_trained(None, str(best), {})
    label = label or run.resolve().name
    target = folder / "bundles" / f"{label}.attarmodel"
    summary = training.training_summary(checkpoint.load(best).record)
    export.to_bundle(net, target, name=label, version="1", licence="unknown", training=summary)
    return f"{label}=attar:{target}"


def _quality(text: str) -> tuple[str, list[float]]:
    name, _, values = text.rpartition("=")
    try:
        numbers = [float(value) for value in values.split(",")]
    except ValueError:
        numbers = []
    if not name or not numbers:
        raise AttarError(f"--qualities {text!r} is not of the form CODEC=Q,Q,... such as jpeg=10,50,90")
    return name, numbers


def _check_reference(reference: str | None, plan: Plan, published: Sequence[Curve]) -> None:
    names = [anchor.name for anchor in plan.anchors] + [curve.name for curve in published]
    if reference is not None and reference not in names:
        from attar.plainjson import nearest

        near = nearest(reference, names)
        hint = f"; did you mean {near!r}?" if near else ""
        raise click.UsageError(f"--reference {reference!r} is none of {', '.join(names)}{hint}")


@contextmanager
def _steps(total: int, label: str, quiet: bool) -> Iterator[Callable[[int, int, str], None]]:
    """The shared progress bar behind the ``(done, total, what)`` callback of attar.measure."""
    with common.progress(total, label, quiet=quiet) as advance:
        reached = 0

        def step(done: int, _: int, __: str) -> None:
            nonlocal reached
            for _ in range(done - reached):
                advance()
            reached = done

        yield step


def _print_table(summary: dict[str, Any]) -> None:
    """One line for each codec: its points, and its BD-rates (or its saving at its own quality)."""
    rates = {
        (delta["codec"], delta["metric"]): delta["rate"]
        for delta in summary["bd"]
        if delta["method"] == "pchip" and delta["reference"] == summary["reference"]
    }
    names = [codec["name"] for codec in summary["codecs"]]
    width = max(map(len, [*names, "codec"]))
    against = f"   (against {summary['reference']})" if summary["reference"] else ""
    click.echo(f"{'codec':{width}}  points  BD-rate PSNR  BD-rate MS-SSIM{against}")
    for codec in summary["codecs"]:
        cells = [rates.get((codec["name"], metric)) for metric in ("psnr", "ms_ssim")]
        shown = ["-" if rate is None else f"{rate:+.1f} %" for rate in cells]
        saved = [s for s in summary["savings"] if (s["codec"], s["metric"]) == (codec["name"], "psnr")]
        if saved and cells[0] is None:
            shown[0] = f"{saved[0]['percent']:+.1f} % at {saved[0]['level']:.1f} dB"
        click.echo(f"{codec['name']:{width}}  {codec['points']:6}  {shown[0]:>12}  {shown[1]:>15}")
