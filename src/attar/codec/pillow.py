"""Pillow opens and saves ``.attar`` files after ``attar.register_pillow()``.

::

    attar.register_pillow()
    image = Image.open("x.attar")                # the header and metadata; pixels when they are needed
    image.save("y.attar", model="photo")
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import IO, Any

import numpy as np
from PIL import Image, ImageFile

from attar.codec import chunks, container, images
from attar.codec.container import Chunk
from attar.codec.shelf import Shelf
from attar.errors import AttarError

__all__ = ["FORMAT", "MIME", "register_pillow"]

FORMAT, MIME, EXTENSION = "ATTAR", "image/x-attar", ".attar"
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
INFO_KEYS = {Chunk.ICC: "icc_profile", Chunk.EXIF: "exif", Chunk.XMP: "xmp"}


def register_pillow(model: str | os.PathLike[str] | None = None) -> None:
    """Teach Pillow, and what builds on it, the ``.attar`` format.

    ``model``: the bundle of files that do not say otherwise (``save(model=...)``); None means that files are
    opened with the model they name and saved with the best one installed. ``save`` also takes ``convert``,
    ``exif``, ``icc_profile`` and ``xmp`` (empty: dropped; not given: those of the image). Faults are raised
    as :class:`OSError`, as Pillow's own are. Pillow's limits against decompression bombs apply.
    """
    shelf = Shelf(model)

    class AttarImageFile(ImageFile.ImageFile):
        format = FORMAT
        format_description = "Attar neural image codec"

        def _open(self) -> None:
            with _faults_as_os_errors():
                data = self.fp.read() if self.fp else b""
                part = container.unpack(data)
                self._data: bytes | None = data
                self._size = part.header.width, part.header.height
                self._mode = MODES[part.header.channels]
                for kind, key in INFO_KEYS.items():
                    if kind in part.chunks:
                        self.info[key] = chunks.unpack_metadata(part.chunks[kind], kind)
            self.tile = []

        def load(self) -> Any:
            if self._data is not None:
                with _faults_as_os_errors():
                    pixels = shelf.for_file(self._data).decompress(self._data)
                self._data = None
                if self.fp and self._exclusive_fp:
                    self.fp.close()
                self.fp = io.BytesIO(np.ascontiguousarray(pixels).tobytes())
                self.tile = [ImageFile._Tile("raw", (0, 0, *self.size), 0, self.mode)]
            return super().load()

        def load_seek(self, pos: int) -> None:
            """Nothing to seek: the pixels are in memory."""

    def save(image: Image.Image, stream: IO[bytes], name: str | bytes) -> None:
        with _faults_as_os_errors():
            stream.write(_encode(image, image.encoderinfo, shelf))

    Image.register_open(FORMAT, AttarImageFile, lambda prefix: prefix.startswith(container.MAGIC))
    Image.register_save(FORMAT, save)
    Image.register_extension(FORMAT, EXTENSION)
    Image.register_mime(FORMAT, MIME)


def _encode(image: Image.Image, options: dict[str, Any], shelf: Shelf) -> bytes:
    codec = shelf.named() if options.get("model") is None else Shelf(options["model"]).named()
    quality = options.get("quality")
    if quality is not None and codec.manifest.qualities is None:
        raise AttarError(f"model {codec.manifest.name!r} has a single rate: save without quality")
    picture = images.read(image, convert=bool(options.get("convert")))
    for key, field in (("icc_profile", "icc"), ("exif", "exif"), ("xmp", "xmp")):
        if key in options:
            body = options[key]
            body = body.tobytes() if isinstance(body, Image.Exif) else body
            changes: dict[str, Any] = {field: (body or b"").removeprefix(images.EXIF_PREFIX) or None}
            picture = replace(picture, **changes)
    return codec.compress(picture, quality=quality)


@contextmanager
def _faults_as_os_errors() -> Iterator[None]:
    try:
        yield
    except AttarError as error:
        raise OSError(str(error)) from error
