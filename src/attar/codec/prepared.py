"""Pictures -> files at one quality after another: what no quality matters to is read, padded and analysed once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from attar.codec import chunks, container
from attar.codec.annealing import STEPS, Annealer, Watch, can_anneal
from attar.codec.container import Chunk, Header
from attar.codec.hyperprior import HyperCoder
from attar.codec.images import Picture
from attar.codec.networks import Begun
from attar.codec.tiling import Held, Kept
from attar.codec.values import as_coded

if TYPE_CHECKING:
    from attar.codec.codec import Codec

__all__ = ["Prepared"]

KEPT_BYTES = 5 << 26
"""Most memory for a large image that is coded several times, with what is kept of its analysis.

All is kept of 47 megapixels of the photo codec, and of 100, whose tiles need the memory, less than a tenth.
"""


class Prepared:
    """Pictures of one size that go through the networks of a codec together. Made by :meth:`attar.Codec.prepared`.

    ``again``: it is one picture, which will be coded more than once.
    """

    def __init__(self, codec: Codec, pictures: Sequence[Picture], *, again: bool = False) -> None:
        self.codec, self.pictures = codec, pictures
        self.kept = Kept(KEPT_BYTES - pictures[0].pixels.nbytes) if again else None
        self.last: tuple[bytes, int, NDArray[Any]] = (b"", 0, np.empty(0))

    def compress(self, quality: int | None = None, *, effort: int = 0, watch: Watch | None = None) -> bytes:
        """The file of the first picture: the very bytes that :meth:`attar.Codec.compress` gives."""
        return self.files(self.codec.level(quality, effort), effort, watch)[0]

    def strips(self, data: bytes) -> Iterator[NDArray[np.uint8]]:
        """Pixels of a file that :meth:`compress` gave, as :meth:`attar.Codec.strips`.

        What the decoder will find in the last one is known, without decoding.
        """
        (height, width, colours) = self.pictures[0].pixels.shape
        last, level, latent = self.last
        if data is not last:
            yield from self.codec.strips(data, max_pixels=height * width)
            return
        (pixels,) = self.codec.synthesise(latent[None], [level])
        yield as_coded(pixels[:height, :width], colours)

    def files(self, level: int, effort: int = 0, watch: Watch | None = None) -> list[bytes]:
        """A file of each picture at a quality as headers have it, 0 for a single rate."""
        if self.codec.is_large(self.pictures[0].pixels.shape):
            return [self._tiled(picture, level, effort, watch) for picture in self.pictures]
        found = self.codec.analyse(self.batch, level, self.begun)
        if effort and self.codec.refiner is not None:
            found = self.codec.refiner.refine(self.batch, found, effort)
        out = []
        for picture, image, symbols in zip(self.pictures, self.batch, found, strict=True):
            header = self._header(picture, level)
            decoded = np.empty_like(symbols) if self.kept else None
            body = self._body(image, symbols, header, effort, decoded, watch)
            out.append(_packed(picture, header, body))
            if decoded is not None:
                self.last = out[-1], level, decoded
        return out

    @cached_property
    def batch(self) -> NDArray[np.uint8]:
        """What the analysis takes, uint8 (B, H, W, C)."""
        return np.stack([self.codec.prepare(picture.pixels) for picture in self.pictures])

    @cached_property
    def begun(self) -> Begun:
        """The part of the analysis that all qualities share."""
        return self.codec.networks.begin("analysis", {"image": self.batch})

    def _body(
        self,
        image: NDArray[np.uint8],
        symbols: NDArray[Any],
        header: Header,
        effort: int,
        decoded: NDArray[Any] | None,
        watch: Watch | None,
    ) -> bytes:
        coder, start = self.codec.latents, container.write_header(header)
        if effort and isinstance(coder, HyperCoder) and can_anneal(coder):
            found = Annealer(coder, Held(image), Held(symbols), header, STEPS[effort], watch)
            return found.encode(start, out=decoded)
        return coder.encode(symbols, start, decoded)

    def _tiled(self, picture: Picture, level: int, effort: int, watch: Watch | None) -> bytes:
        header = self._header(picture, level)
        body = self.codec.large().encode(picture.pixels, header, self.kept, STEPS[effort], watch)
        return _packed(picture, header, body)

    def _header(self, picture: Picture, level: int) -> Header:
        height, width, colours = picture.pixels.shape
        channels = colours + (picture.alpha is not None)
        return Header(channels, width, height, self.codec.bundle.short_id, level)


def _packed(picture: Picture, header: Header, latents: bytes) -> bytes:
    """The bytes of a file of a picture whose latents are coded."""
    bodies = {Chunk.LATENTS: latents}
    if picture.alpha is not None:
        bodies[Chunk.ALPHA] = chunks.pack_alpha(picture.alpha)
    for kind, body in ((Chunk.ICC, picture.icc), (Chunk.EXIF, picture.exif), (Chunk.XMP, picture.xmp)):
        if body:
            bodies[kind] = chunks.pack_metadata(body, kind)
    return container.pack(header, bodies)
