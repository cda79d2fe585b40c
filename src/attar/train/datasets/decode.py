"""Encoded images of a source -> decoded images of one form; a broken one is named and skipped."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

from rich.console import Console
from rich.progress import Progress

from attar.codec.images import read
from attar.errors import DatasetError, ImageError
from attar.train.datasets.assign import digest
from attar.train.datasets.form import Form, conform, opaque
from attar.train.datasets.store import Decoded, Images, cache_path, keep, reopen

__all__ = ["Record", "decode"]

CHUNK = 64
"""Images decoded at a time; bounds the memory in use."""


@dataclass(frozen=True)
class Record:
    """One encoded image of a source."""

    name: str
    part: int
    """The split that the source puts it in: TRAIN, VALIDATION or TEST."""
    read: Callable[[], bytes]
    """Raises OSError or :class:`DatasetError`."""


class _ColourFoundError(Exception):
    """Among images that would have been kept in gray, one has colours."""


def decode(source: str, records: Sequence[Record], form: Form, place: str, state: bytes) -> Images:
    """Decode all records, in order; what cannot be read is skipped and listed.

    ``place`` is the source's own, and ``state`` changes whenever its images may have changed: with ``form``
    they are the key of the cache. Raises :class:`DatasetError` when nothing can be read, or the sizes differ
    and ``form`` does not settle them.
    """
    file = cache_path(place, repr(form), state)
    images = reopen(file)
    if images is None:
        try:
            images = keep(file, _stream(source, records, form))
        except _ColourFoundError:
            images = keep(file, _stream(source, records, replace(form, channels=3)))
    if not len(images.parts):
        raise DatasetError(
            f"{source}: none of its {len(records)} images can be read; the first one: {images.skipped[0]}"
        )
    return images


def _stream(source: str, records: Sequence[Record], form: Form) -> Iterator[Decoded | str]:
    first: Decoded | None = None
    any_size = form.crop is not None or form.height is not None
    console = Console(stderr=True)
    with (
        warnings.catch_warnings(),
        ThreadPoolExecutor(os.cpu_count()) as pool,
        Progress(console=console, disable=not console.is_terminal, transient=True) as progress,
    ):
        # The reader ignores Pillow's warnings one image at a time, which threads would undo for each other.
        warnings.simplefilter("ignore")
        task = progress.add_task(f"decoding {source}", total=len(records))
        for begin in range(0, len(records), CHUNK):
            for image in pool.map(partial(_decoded, form=form), records[begin : begin + CHUNK]):
                progress.advance(task)
                if isinstance(image, str):
                    yield image
                    continue
                if form.channels is None and image.pixels.shape[2] != 1:
                    raise _ColourFoundError
                first = first or image
                if not any_size and image.pixels.shape != first.pixels.shape:
                    raise DatasetError(_differing(source, first, image))
                yield image


def _decoded(record: Record, form: Form) -> Decoded | str:
    try:
        data = record.read()
        pixels = opaque(read(data, convert=True))
    except OSError as error:
        return f"{record.name}: {error.strerror or error}"
    except (DatasetError, ImageError) as error:
        return f"{record.name}: {str(error).removeprefix('image: ')}"
    return Decoded(record.name, record.part, digest(data), conform(pixels, form))


def _differing(source: str, first: Decoded, other: Decoded) -> str:
    sizes = [f"{image.name} is {image.pixels.shape[1]} x {image.pixels.shape[0]}" for image in (first, other)]
    return (
        f"{source}: images of different sizes ({sizes[0]}, {sizes[1]} pixels): pass --height and --width to "
        "resize them, or --crop N for crops of N x N pixels"
    )
