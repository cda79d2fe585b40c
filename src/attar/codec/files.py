"""Writing a file whole or not at all: to a temporary name beside it, then a rename."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from attar.errors import AttarError

__all__ = ["atomic", "is_device", "write_bytes"]


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
    temporary = target.with_name(f".{target.stem[:100]}.{secrets.token_hex(4)}{target.suffix}")
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
