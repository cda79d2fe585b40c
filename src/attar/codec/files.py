"""Writing a file whole or not at all: to a temporary name beside it, then a rename."""

from __future__ import annotations

import os
import re
import secrets
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from attar.errors import AttarError

__all__ = ["atomic", "is_device", "sweep", "write_bytes"]

TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{8}(\.[^.]*)?", re.DOTALL)
"""Names that :func:`atomic` gives: of the file's stem and suffix, with digits between them."""


def is_device(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` is there and is neither a file nor a folder, as ``/dev/null`` or a pipe."""
    target = Path(path)
    return target.exists() and not target.is_file() and not target.is_dir()


@contextmanager
def atomic(path: str | os.PathLike[str], *, overwrite: bool = True) -> Iterator[Path]:
    """Give a temporary path in the folder of ``path`` and rename it to ``path`` when the block ends well.

    When the block raises, the temporary file is removed and ``path`` is as it was. With ``overwrite=False``
    an existing ``path`` is kept, even one that appeared meanwhile. Raises :class:`AttarError`, naming the
    file, when the folder cannot be written to. A device or pipe is written to directly, and a symbolic link
    stays one.
    """
    target = Path(path)
    if is_device(target):
        yield target
        return
    with suppress(RuntimeError):  # a link that leads to itself is replaced like any file
        target = target.resolve() if target.is_symlink() else target
    if not overwrite and target.exists():
        raise AttarError(
            f"{target} exists already and is not overwritten (use -f / --force or overwrite=True)"
        )
    # The suffix is kept: libraries choose their format by it.
    stem, suffix = _kept(target)
    temporary = target.with_name(f".{stem}.{secrets.token_hex(4)}{suffix}")
    try:
        yield temporary
        if overwrite:
            temporary.replace(target)
        else:
            _rename_to_new(temporary, target)
    except OSError as error:
        if error.filename is not None and Path(os.fsdecode(error.filename)) not in (temporary, target):
            raise
        raise AttarError(f"{target} cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def sweep(paths: Iterable[str | os.PathLike[str]]) -> None:
    """Remove the temporary files that a process left when it was killed while it wrote any of ``paths``."""
    wanted: dict[Path, set[tuple[str, str]]] = defaultdict(set)
    for path in map(Path, paths):
        wanted[path.parent].add(_kept(path))
    for folder, names in wanted.items():
        for entry in folder.iterdir() if folder.is_dir() else ():
            found = TEMPORARY.fullmatch(entry.name)
            if found and (found[1], found[2] or "") in names:
                with suppress(OSError):
                    entry.unlink()


def _kept(target: Path) -> tuple[str, str]:
    """What a temporary name keeps of its file's name."""
    return target.stem[:100], target.suffix


def _rename_to_new(temporary: Path, target: Path) -> None:
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise AttarError(
            f"{target} exists already and is not overwritten (use -f / --force or overwrite=True)"
        ) from None
    except OSError:  # a file system without hard links
        temporary.replace(target)


def write_bytes(path: str | os.PathLike[str], data: bytes, *, overwrite: bool = True) -> None:
    """Write ``data`` to ``path``, whole or not at all; raises :class:`AttarError`."""
    with atomic(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(data)
