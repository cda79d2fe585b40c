"""What ``attar train`` says of a run: its data, its epochs, the one that is kept."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from attar.apps.cli import common
from attar.train.config import TrainConfig


def report_data(data: Any) -> None:
    """Say what was loaded, and name every file that was skipped."""
    where = f"; decoded in {data.file}" if data.file else ""
    click.echo(f"data: {data.description}{where}", err=True)
    for line in data.skipped:
        click.echo(f"skipped: {line}", err=True)


def epoch_line(row: dict[str, float], epochs: int | None = None) -> str:
    """The line of one epoch."""
    speed = row["step"] / max(row["seconds"], 1e-9)
    epoch = f"epoch {int(row['epoch'])}{f'/{epochs}' if epochs else ''}"
    return f"{epoch}: {epoch_words(row)} ({speed:.{1 if speed < 10 else 0}f} steps/s)"


def epoch_words(row: dict[str, float]) -> str:
    """One epoch in words."""
    return (
        f"loss {row['val_loss']:.5f}, PSNR {row['val_psnr']:.2f} dB, SSIM {row['val_ssim']:.4f}, "
        f"{row['val_bytes']:.1f} bytes of latents per image"
    )


@contextmanager
def epoch_report(verbosity: int, config: TrainConfig) -> Iterator[Callable[[Any], None]]:
    """What a run says meanwhile: a bar (verbosity 1, on a terminal), a line for each epoch, or nothing."""
    if verbosity == 0:
        yield lambda progress: None
        return
    shown = [0]

    def lines(progress: Any) -> None:
        for row in progress.history[shown[0] :]:
            click.echo(epoch_line(row, config.epochs), err=True)
        shown[0] = len(progress.history)

    if verbosity == 2 or not sys.stderr.isatty():
        yield lines
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("epoch {task.fields[epoch]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[now]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("steps", total=None, epoch="1", now="")
        last = [0.0]

        def watch(progress: Any) -> None:
            lines(progress)
            if time.monotonic() - last[0] < 0.1:
                return
            last[0] = time.monotonic()
            means = progress.means()
            now = f"loss {means['loss']:.4f}  {means['psnr']:.2f} dB  SSIM {means['ssim']:.4f}"
            bar.update(
                task,
                total=config.epochs * progress.steps_per_epoch,
                completed=progress.epoch * progress.steps_per_epoch + progress.batch,
                epoch=f"{min(progress.epoch + 1, config.epochs)}/{config.epochs}",
                now=now if progress.images else "",
            )

        yield watch


def report_best(best: dict[str, Any], verbosity: int, as_json: bool) -> None:
    """Say which epoch's checkpoint was kept."""
    if verbosity:
        words = f"best: epoch {int(best['epoch'])}, {epoch_words(best)}; checkpoint {best['checkpoint']}"
        click.echo(words, err=True)
    if as_json:
        common.echo_json(best)
