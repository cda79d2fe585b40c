"""Codecs by the id that a file carries, each loaded once."""

from __future__ import annotations

import os
from threading import Lock

from attar.codec.codec import Codec, load
from attar.codec.container import MAX_PIXELS, read_header

__all__ = ["Shelf"]


class Shelf:
    """Finds and keeps the codec of each file. May be shared between threads.

    ``model``: the bundle for every file, when it is not to be looked up by the id in the file.
    """

    def __init__(self, model: str | os.PathLike[str] | None = None, *, threads: int | None = None) -> None:
        self.model = model
        self.threads = threads
        self._lock = Lock()
        self._codecs: dict[bytes, Codec] = {}

    def named(self) -> Codec:
        """The codec of ``model``, or of the best installed bundle when none was named."""
        return self._get(b"", self.model)

    def for_file(self, data: bytes, *, max_pixels: int = MAX_PIXELS) -> Codec:
        """The codec that decodes ``data``; raises FormatError, ModelMissingError or BundleError."""
        header = read_header(data, max_pixels=max_pixels)
        return self._get(header.model, header.model) if self.model is None else self.named()

    def _get(self, key: bytes, model: str | os.PathLike[str] | bytes | None) -> Codec:
        with self._lock:
            if key not in self._codecs:
                self._codecs[key] = load(model, threads=self.threads)
            return self._codecs[key]
