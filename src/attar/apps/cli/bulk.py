"""``attar bulk``."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from attar.apps.cli import codec as options
from attar.apps.cli import common
from attar.errors import AttarError, MissingExtraError

if TYPE_CHECKING:
    from attar.apps.bulk.cluster import Cluster
    from attar.apps.bulk.ledger import Ledger
    from attar.apps.bulk.processes import Processes
    from attar.apps.bulk.records import Item, Row, Settings, Shard
    from attar.apps.bulk.run import Totals

__all__ = ["bulk"]

MOST_SHOWN = 20
"""Failed images that are named on the terminal; the ledger has them all."""
ONLY_COMPRESS = ("quality", "effort", "convert", "strip", "metrics")


@click.command()
@click.argument("source", metavar="IN")
@click.argument("out", metavar="OUT")
@click.option("--decompress", is_flag=True, help="Turn .attar files back into images.")
@options.model_option
@options.target_options
@options.encoder_options
@options.max_pixels_option
@click.option(
    "--metrics", is_flag=True, help="Decode every file again and note its PSNR and SSIM in the ledger."
)
@click.option(
    "--format", "suffix", default="png", show_default=True, help="Kind of image that --decompress makes."
)
@click.option(
    "--engine",
    type=click.Choice(["processes", "ray"]),
    default="processes",
    show_default=True,
    help="Processes of this machine, or tasks on a Ray cluster.",
)
@click.option(
    "--address",
    metavar="HOST:PORT",
    help="Of a running Ray cluster, or 'auto'.  [default: one started on this machine]",
)
@click.option(
    "-j", "--jobs", type=click.IntRange(0), default=0, help="Workers.  [default: one for each core]"
)
@click.option(
    "--shard-images", type=click.IntRange(0), default=0, help="Most images that a worker gets at a time."
)
@click.option("-f", "--force", is_flag=True, help="Begin anew: forget the ledger, overwrite what is there.")
@click.option("--quiet", is_flag=True, help="Say nothing but errors.")
@click.option("--json", "as_json", is_flag=True, help="The summary as one JSON document on stdout.")
def bulk(
    source: str,
    out: str,
    decompress: bool,
    engine: str,
    address: str | None,
    jobs: int,
    shard_images: int,
    force: bool,
    quiet: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Compress very many images to .attar files under the folder OUT, on all cores or on a Ray cluster.

    IN is a folder (with what is below it), a pattern in quotes, or a file with a path a line (- for stdin); the
    tree is kept. OUT/ledger.csv says what became of every image. The same command goes on where it was
    interrupted, does what is new or changed, and tries what failed again.
    """
    if address is not None and engine != "ray":
        raise click.UsageError("--address is of a Ray cluster: give --engine ray with it")
    settings, model = _settings(decompress, given)
    items, folder = _planned(source, settings), Path(out)
    workers = _engine(engine, settings, model, folder.absolute(), jobs, address)
    with _opened(folder, settings, force) as ledger:
        known = [replace(item, ours=True) for item in items] if force else ledger.known(items)
        totals = _run(ledger, known, workers, settings.direction, shard_images, quiet)
    _sum_up(totals, ledger.path, settings.direction, quiet=quiet, as_json=as_json)


def _settings(decompress: bool, given: dict[str, Any]) -> tuple[Settings, bytes | None]:
    """The settings, held against the model, and the bundle's bytes."""
    from attar.apps.bulk.records import COMPRESS, DECOMPRESS, Settings
    from attar.codec import images
    from attar.codec.codec import load

    name, suffix = given.pop("model"), "." + given.pop("suffix").lstrip(".").lower()
    target = options.chosen_target(given)
    if decompress and (target or any(given[option] for option in ONLY_COMPRESS)):
        raise click.UsageError(f"--decompress takes no --target, --{', --'.join(ONLY_COMPRESS)}")
    if decompress:
        images.format_of(suffix)
        codec = load(name, threads=1) if name is not None else None
    else:
        codec = load(name, threads=1)
        codec.compress_batch(
            [], quality=given["quality"], effort=given["effort"]
        )  # does the model take these?
    settings = Settings(
        direction=DECOMPRESS if decompress else COMPRESS,
        suffix=suffix if decompress else ".attar",
        model=codec.bundle.sha256 if codec else "",
        target=(target.kind, target.value) if target else None,
        **given,
    )
    return settings, Path(codec.bundle.source).read_bytes() if codec else None


def _planned(source: str, settings: Settings) -> list[Item]:
    from attar.apps.bulk import plan

    try:
        return plan.collect(source, settings.direction, settings.suffix)
    except AttarError as error:
        raise click.UsageError(str(error)) from error


def _engine(
    name: str, settings: Settings, model: bytes | None, out: Path, jobs: int, address: str | None
) -> Cluster | Processes:
    if name == "ray":
        need_ray()
        from attar.apps.bulk.cluster import Cluster

        return Cluster(settings, model, out, jobs, address)
    from attar.apps.bulk.processes import Processes, cores

    return Processes(settings, model, out, jobs or cores())


def need_ray() -> None:
    """Raise :class:`MissingExtraError` where Ray Data cannot be used."""
    for package in ("ray", "pyarrow", "pandas"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "cluster")


@contextmanager
def _opened(folder: Path, settings: Settings, anew: bool) -> Iterator[Ledger]:
    """The ledger; one that does not fit is a usage error."""
    from attar.apps.bulk.ledger import open_ledger

    with ExitStack() as stack:
        try:
            ledger = stack.enter_context(open_ledger(folder, settings, anew=anew))
        except AttarError as error:
            raise click.UsageError(str(error)) from error
        yield ledger


def _run(
    ledger: Ledger,
    items: Sequence[Item],
    workers: Cluster | Processes,
    direction: str,
    shard_images: int,
    quiet: bool,
) -> Totals:
    from attar.apps.bulk import plan, run

    totals = run.Totals(len(items))
    with _bar(totals, direction, quiet) as advance:

        def report(_: Shard, rows: Sequence[Row]) -> None:
            _name_failures(rows, totals.failed, ledger.path)
            advance()

        try:
            with workers:
                totals.restart()
                shards = plan.cut(items, direction, workers.jobs, shard_images)
                run.run(ledger, map(ledger.shard, shards), workers, totals, report)
            ledger.finish()
        except KeyboardInterrupt:
            click.echo(f"bulk: {totals.seen} of {totals.images} are done; the same command goes on", err=True)
            raise
        finally:
            ledger.merge()
    return totals


@contextmanager
def _bar(totals: Totals, label: str, quiet: bool) -> Iterator[Callable[[], None]]:
    """A bar on stderr, where that is a terminal, with the speed, what is saved, and the time left."""
    if quiet or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn(label),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=totals.images, speed="")
        yield lambda: bar.update(task, completed=totals.seen, speed=_speed(totals))


def _speed(totals: Totals) -> str:
    files, megabytes = totals.rates()
    saved = totals.saved_percent
    words = f"{files:.1f} files/s, {megabytes:.1f} MB/s"
    return words if saved is None or saved < 0 else f"{words}, {saved:.1f} % saved"


def _name_failures(rows: Sequence[Row], failed: int, path: Path) -> None:
    """Name failed images on stderr, the first ones of the run; ``failed``: so many until now."""
    errors = [row.error for row in rows if not row.ok]
    before = failed - len(errors)
    for error in errors[: max(0, MOST_SHOWN - before)]:
        click.echo(f"attar: {error}", err=True)
    if before < MOST_SHOWN <= failed:
        click.echo(f"attar: {path} names all that fail; no more are named here", err=True)


def _sum_up(totals: Totals, path: Path, direction: str, *, quiet: bool, as_json: bool) -> None:
    summary = totals.to_json() | {"direction": direction, "ledger": path}
    if as_json:
        common.echo_json(summary)
    if not quiet:
        kept = f" ({totals.kept} of them before)" if totals.kept else ""
        words = f"bulk: {totals.done + totals.kept} of {totals.images} done{kept}"
        if totals.failed:
            words += f", {totals.failed} failed"
        if totals.done:
            sizes = f"{totals.input_bytes / 1e6:.2f} MB -> {totals.bytes / 1e6:.2f} MB"
            words += f"; {sizes} in {summary['seconds']:.1f} s, {_speed(totals)}"
        click.echo(f"{words}; {path}", err=True)
    if codes := totals.exit_codes:
        raise click.exceptions.Exit(codes.pop() if len(codes) == 1 else 1)
