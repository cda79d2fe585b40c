"""What the commands share: inputs and outputs by name, ``-`` and pipes, progress, JSON lines, summaries."""

from __future__ import annotations

import glob
import json
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from attar.codec.files import write_bytes
from attar.errors import AttarError

__all__ = [
    "STDIO",
    "Job",
    "echo_json",
    "expand",
    "hush_pillow",
    "json_option",
    "named_error",
    "plan_outputs",
    "progress",
    "read_input",
    "run_jobs",
    "shown",
    "watching",
    "write_output",
]

STDIO = "-"
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document per file on stdout.")
Job = tuple[str, str]
"""An input and the output it becomes; either may be ``-``."""


def echo_json(row: Mapping[str, Any]) -> None:
    """One JSON document on one line of stdout; what is not finite becomes null."""
    click.echo(json.dumps(_finite(row), ensure_ascii=False, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def expand(inputs: Sequence[str]) -> list[str]:
    """Inputs with ``*``, ``?`` and ``[]`` expanded where the shell has not done so (Windows); order kept."""
    out: list[str] = []
    for name in inputs:
        found = [name]
        if glob.has_magic(name) and not Path(name).exists():
            found = sorted(glob.glob(name, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute one
        if not found:
            raise click.UsageError(f"no file matches {name!r}")
        out += found
    return out


def plan_outputs(inputs: Sequence[str], output: str | None, suffix: str) -> list[Job]:
    """Pair every input with its output.

    ``output`` is a file, ``-`` for stdout, or a folder (one that exists, or a name that ends in a slash);
    None puts each output beside its input, and stdin's to stdout. Two inputs that would become one file are
    a usage error.
    """
    if not inputs:
        raise click.UsageError("nothing to do: name at least one file, or - for stdin")
    if list(inputs).count(STDIO) > 1:
        raise click.UsageError("stdin (-) can be read only once")
    folder = (
        output is not None and output != STDIO and (output.endswith(("/", os.sep)) or Path(output).is_dir())
    )
    if output is not None and not folder:
        if len(inputs) > 1:
            raise click.UsageError(
                f"{len(inputs)} inputs and one output, {output!r}: name a folder, -o "
                f"{output.rstrip('-') or 'DIR'}/"
            )
        return [(inputs[0], output)]
    jobs = [(name, _output_name(name, output, suffix)) for name in inputs]
    taken: dict[str, str] = {}
    for name, target in jobs:
        if target != STDIO and (other := taken.setdefault(os.path.normcase(target), name)) != name:
            raise click.UsageError(f"{other} and {name} would both become {target}")
    return jobs


def _output_name(name: str, folder: str | None, suffix: str) -> str:
    if name == STDIO:
        return STDIO if folder is None else str(Path(folder) / f"stdin{suffix}")
    path = Path(name).with_suffix(suffix) if Path(name).suffix else Path(name + suffix)
    return str(path if folder is None else Path(folder) / path.name)


def read_input(name: str) -> bytes:
    """Bytes of a file, or of stdin for ``-``; raises :class:`AttarError` naming it."""
    if name == STDIO:
        return sys.stdin.buffer.read()
    try:
        return Path(name).read_bytes()
    except IsADirectoryError:
        raise AttarError(
            f"{name}: a folder, not a file; name its files, for example {Path(name) / '*'}"
        ) from None
    except FileNotFoundError:
        raise AttarError(f"{name}: no such file") from None
    except OSError as error:
        raise AttarError(f"{name}: cannot be read: {error.strerror or error}") from error


def write_output(name: str, data: bytes, *, overwrite: bool) -> None:
    """Write to a file, whole or not at all, or to stdout for ``-``; raises :class:`AttarError`."""
    if name != STDIO:
        make_folder(name)
        write_bytes(name, data, overwrite=overwrite)
        return
    if sys.stdout.isatty():
        raise AttarError("binary data is not written to a terminal: use -o FILE, or redirect stdout")
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def make_folder(name: str) -> None:
    """Make the folder in which the file ``name`` is to be; raises :class:`AttarError`."""
    try:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AttarError(f"{name}: its folder cannot be made: {error.strerror or error}") from error


def named_error(name: str, error: AttarError) -> str:
    """The error's text, beginning with the file's name."""
    text = str(error)
    return text if shown(name) in text else f"{shown(name)}: {text}"


def shown(name: str) -> str:
    """The name of an input as it is put before an error."""
    return "stdin" if name == STDIO else name


@contextmanager
def progress(total: int, label: str, *, quiet: bool = False) -> Iterator[Callable[[], None]]:
    """A bar on stderr when that is a terminal and there is much to do; yields ``advance()``."""
    if quiet or total < 2 or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda: bar.advance(task)


@contextmanager
def watching(label: str, *, quiet: bool = False) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on stderr, when that is a terminal, for work that tells ``(done, total)`` itself."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn(label), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def hush_pillow() -> None:
    """Silence Pillow's warnings on odd metadata; whatever is wrong with the pixels is an error."""
    warnings.filterwarnings("ignore", module=r"PIL\.")


def run_jobs(
    jobs: Sequence[Job],
    work: Callable[[Job], dict[str, Any]],
    *,
    label: str,
    show: Callable[[dict[str, Any]], None],
    workers: int = 1,
    as_json: bool = False,
    quiet: bool = False,
    summary: bool = True,
) -> None:
    """Do ``work`` for every job, go on after a failure, and end with a summary.

    ``work`` returns a row, and ``show`` prints it in words; with ``as_json`` every row, failed ones
    included, is a line of stdout instead. Exits with the code that all failures share, or 1. Ctrl-C
    finishes nothing half: jobs that have not begun are dropped, and what was written is whole.
    """
    codes: list[int] = []

    def report(job: Job, outcome: dict[str, Any] | AttarError) -> None:
        if isinstance(outcome, AttarError):
            codes.append(outcome.exit_code)
            message = named_error(job[0], outcome)
            click.echo(f"attar: {message}", err=True)
            outcome = {"input": job[0], "ok": False, "error": message}
        elif not quiet and not as_json:
            show(outcome)
        if as_json:
            echo_json(outcome)

    with progress(len(jobs), label, quiet=quiet) as advance:
        for job, outcome in _outcomes(jobs, work, workers):
            report(job, outcome)
            advance()
    if len(jobs) > 1 and (codes or (summary and not quiet)):
        click.echo(
            f"{label}: {len(jobs) - len(codes)} of {len(jobs)} done"
            + (f", {len(codes)} failed" if codes else ""),
            err=True,
        )
    if codes:
        raise click.exceptions.Exit(codes[0] if len(set(codes)) == 1 else 1)


def _outcomes(
    jobs: Sequence[Job], work: Callable[[Job], dict[str, Any]], workers: int
) -> Iterator[tuple[Job, dict[str, Any] | AttarError]]:
    """Outcomes in the order of ``jobs`` when there is one worker, else as they come."""

    def attempt(job: Job) -> dict[str, Any] | AttarError:
        try:
            return work(job)
        except AttarError as error:
            return error

    if workers == 1 or len(jobs) == 1:
        for job in jobs:
            yield job, attempt(job)
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting = iter(jobs)
        running: dict[Future[dict[str, Any] | AttarError], Job] = {}
        try:
            while True:
                for job in waiting:
                    running[pool.submit(attempt, job)] = job
                    if len(running) >= 2 * workers:
                        break
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future.result()
        finally:
            for future in running:
                future.cancel()
