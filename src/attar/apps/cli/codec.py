"""``attar compress``, ``decompress``, ``info``, ``verify`` and ``models``."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from attar.apps.cli import common
from attar.apps.cli.common import STDIO, Job
from attar.apps.cli.describe import Row, describe_bits, describe_bundle, describe_file, in_words
from attar.codec.container import MAX_PIXELS
from attar.codec.files import is_device
from attar.errors import AttarError

if TYPE_CHECKING:
    from attar.codec.images import Picture
    from attar.codec.large import Region
    from attar.codec.targets import Target

__all__ = ["compress", "decompress", "info", "models", "verify"]

WHOLE_NUMBER = re.compile(r"\s*-?[0-9]{1,18}\s*")
Command = TypeVar("Command", bound=Callable[..., Any])


class RegionType(click.ParamType):
    """Four whole numbers with commas between them."""

    name = "X,Y,W,H"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> Region:
        """The numbers; whether they lie inside of an image is for each file to say."""
        if isinstance(value, tuple):
            return value
        parts = str(value).split(",")
        if len(parts) != 4 or not all(WHOLE_NUMBER.fullmatch(part) for part in parts):
            self.fail(f"{value!r}: four whole numbers expected, left,top,width,height", param, context)
        left, top, width, height = map(int, parts)
        return left, top, width, height


model_option = click.option(
    "-m", "--model", metavar="MODEL", help="A bundle: its path, or the name or id of an installed one."
)
json_option = common.json_option
max_pixels_option = click.option(
    "--max-pixels",
    type=click.IntRange(1),
    default=MAX_PIXELS,
    show_default=True,
    help="Refuse larger images.",
)
inputs_argument = click.argument("inputs", nargs=-1, required=True, metavar="FILE...")


def output_options(command: Command) -> Command:
    """The options of a command that makes one file out of each input; see :func:`convert_files`."""
    for option in (
        click.option("--quiet", is_flag=True, help="Say nothing but errors."),
        click.option("--skip-existing", is_flag=True, help="Leave inputs alone whose output exists."),
        click.option("-f", "--force", is_flag=True, help="Overwrite existing files."),
        click.option(
            "-j",
            "--jobs",
            "workers",
            type=click.IntRange(0),
            default=1,
            help="Files at a time; 0: one per core.",
        ),
        click.option(
            "-o",
            "--output",
            metavar="OUT",
            help="A file, a folder (DIR/), or - for stdout.  [default: beside FILE]",
        ),
    ):
        command = option(command)
    return command


def target_options(command: Command) -> Command:
    """``-q`` and the targets, of which one may be given; see :func:`chosen_target`."""
    for option in (
        click.option("--target-ssim", type=float, metavar="S", help="Smallest file of at least this SSIM."),
        click.option("--target-psnr", type=float, metavar="DB", help="Smallest file of at least this PSNR."),
        click.option("--target-bpp", type=float, metavar="N", help="Best file of at most N bits per pixel."),
        click.option("--target-bytes", type=int, metavar="N", help="Best file of at most N bytes."),
        click.option(
            "-q", "--quality", type=click.IntRange(1, 100), help="Quality, for models of variable rate."
        ),
    ):
        command = option(command)
    return command


def encoder_options(command: Command) -> Command:
    """What is accepted, kept and searched for when an image is compressed."""
    for option in (
        click.option("--strip", is_flag=True, help="Drop ICC profile, EXIF and XMP."),
        click.option("--convert", is_flag=True, help="Accept a loss: CMYK, 16 bits, frames after the first."),
        click.option(
            "--effort",
            type=click.IntRange(0, 9),
            default=0,
            show_default=True,
            help="Search for a better file: 9 takes longest; decoding stays the same.",
        ),
    ):
        command = option(command)
    return command


@click.command()
@inputs_argument
@output_options
@target_options
@model_option
@encoder_options
@max_pixels_option
@json_option
def compress(
    inputs: tuple[str, ...],
    model: str | None,
    effort: int,
    convert: bool,
    strip: bool,
    max_pixels: int,
    **options: Any,
) -> None:
    """Compress images to .attar files. FILE may be - for stdin."""
    from attar.apps.reaching import compress_to
    from attar.codec import images
    from attar.codec.shelf import Shelf

    common.hush_pillow()
    target = chosen_target(options)
    jobs = common.plan_outputs(common.expand(inputs), options["output"], ".attar")
    codec = Shelf(model, threads=_threads(options["workers"])).named()
    quality = options.pop("quality")
    if quality is not None and codec.manifest.qualities is None:
        raise click.UsageError(f"model {codec.manifest.name!r} has a single rate and takes no --quality")

    def work(name: str) -> tuple[bytes, Row]:
        raw = common.read_input(name)
        picture = images.read(raw, convert=convert, max_pixels=max_pixels, name=common.shown(name))
        size = len(raw)
        del raw  # of a large image, hundreds of megabytes
        plain = picture.stripped() if strip else picture
        alone = effort and len(jobs) == 1  # of several, each is a step of their own bar
        with common.watching("compress", quiet=options["quiet"] or not alone) as watch:
            data = (
                compress_to(target, codec, plain, effort, watch)
                if target
                else codec.compress(plain, quality=quality, effort=effort, watch=watch)
            )
        pixels = picture.pixels.shape[0] * picture.pixels.shape[1]
        sizes = {"input_bytes": size, "bytes": len(data), "bpp": 8 * len(data) / pixels}
        return data, _size(picture) | sizes | {"model": codec.manifest.name}

    convert_files(jobs, lambda job: work(job[0]), "compress", **options)


def chosen_target(options: dict[str, Any]) -> Target | None:
    """Take the targets out of the options of a command; more than one is a usage error."""
    from attar.codec.targets import KINDS, Target

    given = {kind: value for kind in KINDS if (value := options.pop(f"target_{kind}")) is not None}
    if len(given) + (options["quality"] is not None) > 1:
        raise click.UsageError("one of --quality and the --target options may be given")
    return Target(*given.popitem()) if given else None


@click.command()
@inputs_argument
@output_options
@model_option
@click.option(
    "--format", "suffix", default="png", show_default=True, help="Kind of image when OUT does not name it."
)
@click.option(
    "--region",
    type=RegionType(),
    help="Only this part: left, top, width and height in pixels of the upright image. No more of a file is "
    "decoded and checked than it takes; the part has the metadata of the whole.",
)
@max_pixels_option
@json_option
def decompress(
    inputs: tuple[str, ...],
    model: str | None,
    suffix: str,
    region: Region | None,
    max_pixels: int,
    **options: Any,
) -> None:
    """Turn .attar files back into images. FILE may be - for stdin."""
    from attar.codec import images
    from attar.codec.shelf import Shelf

    suffix = "." + suffix.lstrip(".").lower()
    jobs = common.plan_outputs(common.expand(inputs), options["output"], suffix)
    shelf = Shelf(model, threads=_threads(options["workers"]))

    def work(job: Job) -> tuple[bytes, Row]:
        kind = images.format_of(suffix if job[1] == STDIO else job[1])
        data = common.read_input(job[0])
        codec = shelf.for_file(data, max_pixels=max_pixels)
        picture = codec.decode(data, max_pixels=max_pixels, region=region)
        row = _size(picture) | {"bytes": len(data), "model": codec.manifest.name}
        return images.encode(picture, kind, name=job[1]), row

    convert_files(jobs, work, "decompress", **options)


@click.command()
@inputs_argument
@click.option(
    "--bits",
    is_flag=True,
    help="Decode the symbols, and say where the bits are: in which channels and places.",
)
@model_option
@max_pixels_option
@json_option
def info(inputs: tuple[str, ...], bits: bool, model: str | None, max_pixels: int, as_json: bool) -> None:
    """Show what a .attar file or a bundle says of itself. FILE may be - for stdin."""
    from attar.codec import bundle
    from attar.codec.shelf import Shelf

    names = {bundle.sha256(path)[:8]: name for name, path in bundle.installed().items()}
    shelf = Shelf(model)

    def work(job: Job) -> Row:
        data = common.read_input(job[0])
        if data[:2] == b"PK":
            row = describe_bundle(job[0], data)
        else:
            row = describe_file(data, names)
            if bits:
                codec = shelf.for_file(data, max_pixels=max_pixels)
                row |= describe_bits(codec.bits(data, max_pixels=max_pixels))
        return {"input": job[0], "ok": True} | row

    jobs = [(name, STDIO) for name in common.expand(inputs)]
    common.run_jobs(jobs, work, label="info", show=lambda row: click.echo(in_words(row)), as_json=as_json)


@click.command()
@inputs_argument
@model_option
@max_pixels_option
@json_option
def verify(inputs: tuple[str, ...], model: str | None, max_pixels: int, as_json: bool) -> None:
    """Check .attar files to the last bit: structure, checksums, symbols, alpha and metadata."""
    from attar.codec.shelf import Shelf

    shelf = Shelf(model)

    def work(job: Job) -> Row:
        data = common.read_input(job[0])
        codec = shelf.for_file(data, max_pixels=max_pixels)
        count = codec.verify(data, max_pixels=max_pixels)
        return {
            "input": job[0],
            "ok": True,
            "bytes": len(data),
            "symbols": count,
            "model": codec.manifest.name,
        }

    jobs = [(name, STDIO) for name in common.expand(inputs)]
    common.run_jobs(
        jobs, work, label="verify", show=lambda row: click.echo(f"{row['input']}: ok"), as_json=as_json
    )


@click.group(invoke_without_command=True)
@click.pass_context
def models(context: click.Context) -> None:
    """List the installed bundles, or show one."""
    if context.invoked_subcommand is None:
        context.invoke(list_models, as_json=False)


@models.command("list")
@json_option
def list_models(as_json: bool) -> None:
    """List the installed bundles."""
    from attar.codec import bundle

    found = bundle.installed()
    if not found:
        click.echo(f"no model is installed; looked in {', '.join(map(str, bundle.folders()))}", err=True)

    def show(row: Row) -> None:
        click.echo(
            f"{row['name']:<16} {row['id'][:8]} {row['bytes'] / 1e6:7.2f} MB  {row['accepts']}  "
            f"{row['input']}"
        )

    def work(job: Job) -> Row:
        return {"input": job[0], "ok": True} | describe_bundle(job[0], common.read_input(job[0]))

    jobs = [(str(path), STDIO) for path in found.values()]
    common.run_jobs(jobs, work, label="models", show=show, as_json=as_json, summary=False)


@models.command("show")
@click.argument("model")
@json_option
def show_model(model: str, as_json: bool) -> None:
    """Show one bundle: its path, name or id."""
    from attar.codec import bundle

    path = str(bundle.find(model))
    row = {"input": path, "ok": True} | describe_bundle(path, common.read_input(path))
    if as_json:
        common.echo_json(row)
    else:
        click.echo(in_words(row))


def convert_files(
    jobs: list[Job],
    make: Callable[[Job], tuple[bytes, Row]],
    label: str,
    *,
    output: str | None,
    workers: int,
    force: bool,
    skip_existing: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Write what ``make`` makes of each input to its output, with the options of :func:`output_options`."""
    if as_json and any(target == STDIO for _, target in jobs):
        raise click.UsageError("--json and -o - would both write to stdout; give -o a file")

    def work(job: Job) -> Row:
        started = time.perf_counter()
        name, target = job
        if target != STDIO and not force and Path(target).exists() and not is_device(target):
            if skip_existing:
                return {"input": name, "output": target, "ok": True, "skipped": True}
            raise AttarError(f"{target} exists already: overwrite it with -f, or pass --skip-existing")
        data, row = make(job)
        common.write_output(target, data, overwrite=force)
        return (
            {"input": name, "output": target, "ok": True} | row | {"seconds": time.perf_counter() - started}
        )

    def show(row: Row) -> None:
        if row["output"] == STDIO:
            return
        if row.get("skipped"):
            click.echo(f"{row['output']} exists, skipped", err=True)
        else:
            rate = f", {row['bpp']:.3f} bpp" if "bpp" in row else ""
            size = f"{row['width']} x {row['height']}, {row['bytes']} bytes{rate}"
            click.echo(f"{row['input']} -> {row['output']}: {size}", err=True)

    count = workers or os.cpu_count() or 1
    common.run_jobs(jobs, work, label=label, show=show, workers=count, as_json=as_json, quiet=quiet)


def _size(picture: Picture) -> Row:
    height, width, colours = picture.pixels.shape
    return {"width": width, "height": height, "channels": colours + (picture.alpha is not None)}


def _threads(workers: int) -> int | None:
    """Threads of each network: all of them for one file at a time, else one."""
    return None if workers == 1 else 1
