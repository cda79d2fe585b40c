"""``Codec``: image -> ``.attar`` bytes -> image, with one bundle.

::

    image --analysis--> latent --rint--> symbols --entropy--> chunk --container--> file
    file --container--> chunk --entropy--> symbols --synthesis--> image

Images go through the networks whole, equal sizes together; large images and regions go tile by tile.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from attar.codec import bundle as bundles
from attar.codec import chunks, container, images
from attar.codec.annealing import Watch
from attar.codec.bits import Tally
from attar.codec.bundle import Bundle
from attar.codec.container import Chunk, Container
from attar.codec.hyperprior import HyperCoder
from attar.codec.images import Picture
from attar.codec.large import LargeCoder, Region, area_of
from attar.codec.latents import LatentCoder
from attar.codec.manifest import Hyperprior
from attar.codec.networks import Begun, Networks
from attar.codec.prepared import Prepared
from attar.codec.refine import MAX_EFFORT, MAX_SYMBOLS, Refiner
from attar.codec.tiling import Area, everything
from attar.codec.values import as_coded, check_latent, levels, to_pixels, to_symbols
from attar.errors import BundleError, FormatError, ImageError, ModelMissingError, TargetError

__all__ = ["Codec", "load"]

PREFERRED = ("photo", "digits")
"""Models that are taken when none is named, the first installed one."""
DEFAULT_QUALITY = 50
MAX_BATCH_PIXELS = 1 << 20
"""Images go through a network together up to this many pixels; beyond, memory grows and nothing is won."""
MAX_WHOLE_PIXELS = 1 << 22
"""Larger images go through the networks in tiles."""
NETWORK_TILE = 1024
"""Side of these tiles in pixels, without their margins: larger ones cost memory, smaller ones time."""

Source = NDArray[np.uint8] | Image.Image | Picture | str | os.PathLike[str] | bytes | IO[bytes]


def load(model: str | os.PathLike[str] | bytes | None = None, *, threads: int | None = None) -> Codec:
    """Codec of a bundle: a path, the name or id of an installed one, or (None) the best one installed.

    Raises :class:`ModelMissingError` or :class:`BundleError`.
    """
    if model is None:
        names = bundles.installed()
        model = next((name for name in PREFERRED if name in names), None) or next(iter(names), None)
        if model is None:
            raise ModelMissingError(
                f"no model is installed; put one (*{bundles.SUFFIX}) into {bundles.folders()[-1]}, or name "
                "one with -m FILE (model=FILE)"
            )
    return Codec(bundles.read(bundles.find(model)), threads=threads)


class Codec:
    """Compresses images to ``.attar`` files and back with one bundle.

    ``threads``: of the networks; None lets ONNX Runtime choose. Networks are loaded at their first use, so
    a codec that only decompresses never loads the analysis. An instance may be shared between threads.
    """

    def __init__(self, bundle: Bundle, *, threads: int | None = None) -> None:
        self.bundle = bundle
        self.manifest = bundle.manifest
        self.networks = Networks(bundle, threads)

    def __repr__(self) -> str:
        return f"Codec({self.manifest.name!r}, {self.bundle.sha256[:8]}: {self.manifest.accepts})"

    def compress(
        self,
        image: Source,
        *,
        quality: int | None = None,
        effort: int = 0,
        convert: bool = False,
        strip: bool = False,
        watch: Watch | None = None,
    ) -> bytes:
        """The bytes of a ``.attar`` file.

        ``image``: uint8 (H, W) or (H, W, 1 to 4), the last of 2 or 4 channels being alpha, a Pillow image,
        or an image file. ``quality``: 1 to 100 for a model of variable rate, 50 when None; a model with a
        single rate takes none. ``effort``: 0 to 9, the search for better symbols of this image: rounds for short
        latents, :data:`attar.codec.annealing.STEPS` for hyperpriors trained for ``mse`` or ``ms-ssim``; others have
        none. ``watch``: told ``(done, steps)`` by the latter. ``convert`` accepts what loses something
        (:func:`attar.codec.images.read`); ``strip`` drops the metadata. Raises :class:`ImageError` for an
        image that cannot be read, or that the model cannot take.
        """
        options: dict[str, Any] = {"convert": convert, "strip": strip, "watch": watch}
        (data,) = self.compress_batch([image], quality=quality, effort=effort, **options)
        return data

    def compress_batch(
        self,
        sources: Sequence[Source],
        *,
        quality: int | None = None,
        effort: int = 0,
        convert: bool = False,
        strip: bool = False,
        watch: Watch | None = None,
    ) -> list[bytes]:
        """A file for each image; images of equal size go through the network together."""
        level = self.level(quality, effort)
        pictures = [self._accepted(source, convert, strip) for source in sources]
        files: list[bytes] = [b""] * len(pictures)
        for places in _batches([picture.pixels.shape for picture in pictures]):
            found = Prepared(self, [pictures[place] for place in places]).files(level, effort, watch)
            for place, data in zip(places, found, strict=True):
                files[place] = data
        return files

    def prepared(self, image: Source, *, convert: bool = False, strip: bool = False) -> Prepared:
        """An image that is to be compressed at several qualities: ``prepared(image).compress(quality)``.

        Each gives the bytes that :meth:`compress` does, and only what depends on the quality is done for each.
        """
        return Prepared(self, [self._accepted(image, convert, strip)], again=True)

    def decompress(
        self, data: bytes, *, max_pixels: int = container.MAX_PIXELS, region: Region | None = None
    ) -> NDArray[np.uint8]:
        """Pixels uint8 (H, W, C) of a ``.attar`` file; C is 1 or 3, or 2 or 4 with alpha.

        ``region``: (left, top, width, height) of a part of the upright image; only what this part depends on
        is decoded and checked, and its pixels are those of the whole image, within 1 level. Raises
        :class:`FormatError` for a damaged file, :class:`ModelMissingError` for one of another model,
        :class:`ImageError` for a region that is not inside of the image.
        """
        return self.decode(data, max_pixels=max_pixels, region=region).to_array()

    def decompress_batch(
        self, files: Sequence[bytes], *, max_pixels: int = container.MAX_PIXELS
    ) -> list[NDArray[np.uint8]]:
        """Pixels of each file; files of equal size go through the network together."""
        return [picture.to_array() for picture in self.decode_batch(files, max_pixels=max_pixels)]

    def decode(
        self, data: bytes, *, max_pixels: int = container.MAX_PIXELS, region: Region | None = None
    ) -> Picture:
        """Everything that a ``.attar`` file holds: pixels, alpha and metadata. See :meth:`decompress`.

        A region has the metadata of the whole image.
        """
        if region is None:
            return self.decode_batch([data], max_pixels=max_pixels)[0]
        part = self.unpack(data, max_pixels=max_pixels)
        area = area_of(region, part.header)
        if self.manifest.latent.stride is not None:
            return self._decode_area(part, area)
        (pixels,) = self.synthesise(self.symbols(part)[None], [part.header.quality])
        return _finished(pixels, part, area)

    def decode_batch(
        self, files: Sequence[bytes], *, max_pixels: int = container.MAX_PIXELS
    ) -> list[Picture]:
        """:meth:`decode` of each file; files of equal size go through the network together."""
        parts = [self.unpack(data, max_pixels=max_pixels) for data in files]
        pictures: dict[int, Picture] = {}
        for places in _batches([(part.header.height, part.header.width) for part in parts]):
            header = parts[places[0]].header
            if self.is_large((header.height, header.width)):
                for place in places:
                    pictures[place] = self._decode_area(
                        parts[place], everything((header.height, header.width))
                    )
                continue
            batch = np.stack([self.symbols(parts[place]) for place in places])
            qualities = [parts[place].header.quality for place in places]
            for place, pixels in zip(places, self.synthesise(batch, qualities), strict=True):
                pictures[place] = _finished(pixels, parts[place], everything((header.height, header.width)))
        return [pictures[place] for place in range(len(parts))]

    def strips(self, data: bytes, *, max_pixels: int = container.MAX_PIXELS) -> Iterator[NDArray[np.uint8]]:
        """Pixels (h, W, C) without alpha of a file, in strips of whole rows from the top.

        Together they are those of :meth:`decode`; a large image is never all in memory. Raises as that does.
        """
        part = self.unpack(data, max_pixels=max_pixels)
        header = part.header
        if not self.is_large((header.height, header.width)):
            yield self.decode(data, max_pixels=max_pixels).pixels
            return
        large, size = self.large(), (header.height, header.width)
        latent = large.opened(part.chunks[Chunk.LATENTS], part.header_bytes, size)
        yield from large.strips(latent, size, header.quality, header.channels)

    def unpack(self, data: bytes, *, max_pixels: int = container.MAX_PIXELS) -> Container:
        """Take a file of this codec's model apart and check all of it but the symbols."""
        part = container.unpack(data, max_pixels=max_pixels)
        if part.header.model != self.bundle.short_id:
            raise ModelMissingError(
                f"the file was made with model {part.header.model.hex()}, "
                f"and {self.manifest.name!r} is {self.bundle.sha256[:8]}"
            )
        size = (part.header.height, part.header.width)
        if fault := self.refusal(size, 1 if part.header.channels < 3 else 3):
            raise FormatError(f"the file declares what its model cannot hold: {fault}")
        lowest, highest = self.manifest.qualities or (0, 0)
        if not lowest <= part.header.quality <= highest:
            takes = f"takes {lowest} to {highest}" if highest else "has a single rate"
            raise FormatError(f"the file declares quality {part.header.quality}; its model {takes}")
        return part

    def verify(self, data: bytes, *, max_pixels: int = container.MAX_PIXELS) -> int:
        """Check every byte of a file without making its pixels; returns the number of its symbols."""
        part = self.unpack(data, max_pixels=max_pixels)
        self._go_through(part)
        _beside_pixels(part, everything((part.header.height, part.header.width)))
        return math.prod(self.manifest.latent_shape(part.header.height, part.header.width))

    def bits(self, data: bytes, *, max_pixels: int = container.MAX_PIXELS) -> Tally:
        """Where the bits of a file are, by latent channel and by place. Raises as :meth:`decompress` does."""
        part, entropy = self.unpack(data, max_pixels=max_pixels), self.manifest.entropy
        shape = self.manifest.latent_shape(part.header.height, part.header.width)
        hyper = (entropy.channels, entropy.first_scale) if isinstance(entropy, Hyperprior) else ()
        tally = Tally(shape, self.bundle.tables, *hyper)
        self._go_through(part, tally)
        return tally

    def prepare(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """What the analysis takes: (H, W, C) padded to the model's multiple, gray repeated for colour."""
        padded = images.pad(pixels, *self.manifest.padded_size(*pixels.shape[:2]))
        return np.repeat(padded, 3, axis=2) if pixels.shape[2] < self.manifest.channels else padded

    def analyse(
        self, images: NDArray[np.uint8], quality: int = 0, begun: Begun | None = None
    ) -> NDArray[Any]:
        """Symbols int32 (B, ..., L) of images uint8 (B, H, W, C) that are already padded.

        For a hyperprior: the latent, float32 (B, h, w, L), whose residuals are rounded when it is coded.
        ``begun``: of these images, what :meth:`Networks.begin` gave.
        """
        given: dict[str, NDArray[Any]] = {"image": images, "quality": levels([quality] * len(images))}
        begun = self.networks.begin("analysis", given) if begun is None else begun
        latent = self.networks.finish("analysis", begun, given)
        expected = (len(images), *self.manifest.latent_shape(*images.shape[1:3]))
        check_latent(latent, expected, self.bundle.source)
        return latent if isinstance(self.manifest.entropy, Hyperprior) else to_symbols(latent)

    def synthesise(self, symbols: NDArray[Any], qualities: Sequence[int] = ()) -> NDArray[np.uint8]:
        """Images uint8 (B, H, W, C), padded, of what :meth:`symbols` gives, (B, ..., L)."""
        given = "latent" if isinstance(self.manifest.entropy, Hyperprior) else "symbols"
        rates = levels(qualities or [0] * len(symbols))
        image = self.networks.run("synthesis", {given: symbols.astype(np.float32), "quality": rates})
        if image.ndim != 4 or image.shape[0] != len(symbols) or image.shape[3] != self.manifest.channels:
            raise BundleError(
                f"{self.bundle.source}: synthesis gave images of shape {image.shape}; (B, H, W, "
                f"{self.manifest.channels}) expected"
            )
        return to_pixels(image)

    def symbols(self, part: Container) -> NDArray[Any]:
        """Decode and check the symbols int32 (..., L) of one file; for a hyperprior, its float32 latent."""
        shape = self.manifest.latent_shape(part.header.height, part.header.width)
        return self.latents.decode(part.chunks[Chunk.LATENTS], part.header_bytes, shape)

    def is_large(self, size: Sequence[int]) -> bool:
        """Whether an image of (height, width, ...) goes through the networks in tiles."""
        return self.manifest.latent.stride is not None and size[0] * size[1] > MAX_WHOLE_PIXELS

    def large(self) -> LargeCoder:
        """What codes such images."""
        return LargeCoder(self.networks, self.latents, NETWORK_TILE)

    def _decode_area(self, part: Container, area: Area) -> Picture:
        """The picture in an area of the image, from what that area depends on."""
        large, header = self.large(), part.header
        size = (header.height, header.width)
        latent = large.opened(part.chunks[Chunk.LATENTS], part.header_bytes, size)
        pixels = large.paint(latent, area, header.quality, header.channels)
        return Picture(pixels, **_beside_pixels(part, area))

    def _go_through(self, part: Container, tally: Tally | None = None) -> None:
        """Decode and check all symbols; ``tally`` counts what they cost."""
        size = (part.header.height, part.header.width)
        if self.manifest.latent.stride is None:
            symbols = self.symbols(part)
            if tally:
                tally.add_factorized(symbols, everything(symbols.shape) if symbols.ndim == 3 else None)
            return
        tiled, body = self.is_large(size), part.chunks[Chunk.LATENTS]
        large = self.large()
        large.go_through(large.opened(body, part.header_bytes, size, tiled=tiled, tally=tally))

    def level(self, quality: int | None, effort: int = 0) -> int:
        """The quality as the header has it: 0 for a single rate. Raises :class:`TargetError`, also for ``effort``."""
        if not 0 <= effort <= MAX_EFFORT:
            raise TargetError(f"effort {effort}: expected 0 to {MAX_EFFORT}")
        if self.manifest.qualities is None:
            if quality is None:
                return 0
            raise TargetError(f"model {self.manifest.name!r} has a single rate and takes no quality")
        lowest, highest = self.manifest.qualities
        if quality is None:
            return min(max(DEFAULT_QUALITY, lowest), highest)
        if not lowest <= quality <= highest or quality != int(quality):
            raise TargetError(
                f"quality {quality}: model {self.manifest.name!r} takes whole numbers from {lowest} to "
                f"{highest}"
            )
        return int(quality)

    def _accepted(self, source: Source, convert: bool, strip: bool) -> Picture:
        if isinstance(source, Picture):
            picture = source
        else:
            picture = (
                images.from_array(source)
                if isinstance(source, np.ndarray)
                else images.read(source, convert=convert)
            )
        if fault := self.refusal(picture.pixels.shape[:2], picture.pixels.shape[2]):
            name = f"{source}: " if isinstance(source, (str, os.PathLike)) else ""
            raise ImageError(f"{name}{fault}")
        return picture.stripped() if strip else picture

    def refusal(self, size: tuple[int, ...], channels: int) -> str | None:
        """Why images of ``size`` (height, width) and 1 or 3 ``channels`` are not taken; None where they are."""
        fits = self.manifest.size is None or tuple(size) == self.manifest.size
        if fits and channels <= self.manifest.channels:
            return None
        given = f"{'gray' if channels == 1 else 'RGB'}, {size[0]} x {size[1]} (height x width)"
        return f"{given}; model {self.manifest.name!r} takes {self.manifest.accepts}"

    @cached_property
    def latents(self) -> LatentCoder | HyperCoder:
        """Codes the latents with the tables (and, for a hyperprior, the networks) of the bundle."""
        entropy = self.manifest.entropy
        if isinstance(entropy, Hyperprior):
            return HyperCoder(self.manifest, entropy, self.bundle.tables, self.networks)
        return LatentCoder(self.manifest, self.bundle.tables)

    @cached_property
    def refiner(self) -> Refiner | None:
        """The search of higher efforts, for latents that are short vectors."""
        latent = self.manifest.latent
        short = latent.stride is None and not latent.shape and latent.channels <= MAX_SYMBOLS
        if not short or isinstance(self.manifest.entropy, Hyperprior):
            return None
        return Refiner(self.synthesise, self.bundle.tables)


def _batches(shapes: Sequence[tuple[int, ...]]) -> list[list[int]]:
    """Positions of equal shapes, together up to :data:`MAX_BATCH_PIXELS`."""
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for position, shape in enumerate(shapes):
        groups[shape].append(position)
    batches = []
    for shape, places in groups.items():
        step = max(1, MAX_BATCH_PIXELS // (shape[0] * shape[1]))
        batches += [places[start : start + step] for start in range(0, len(places), step)]
    return batches


def _finished(pixels: NDArray[np.uint8], part: Container, area: Area) -> Picture:
    """The picture in an area of an image from the padded pixels (H, W, C) of its model."""
    height, width, channels = part.header.height, part.header.width, part.header.channels
    if pixels.shape[0] < height or pixels.shape[1] < width:
        raise FormatError(
            f"the model gave {pixels.shape[1]} x {pixels.shape[0]} pixels for {width} x {height}"
        )
    return Picture(as_coded(pixels[area.within()], channels), **_beside_pixels(part, area))


def _beside_pixels(part: Container, area: Area) -> dict[str, Any]:
    """Alpha of an area and metadata of a file, as arguments of :class:`Picture`."""
    out: dict[str, Any] = {}
    for kind, body in part.chunks.items():
        if kind is Chunk.ALPHA:
            out["alpha"] = chunks.unpack_alpha(body, part.header.height, part.header.width)[area.within()]
        elif kind is not Chunk.LATENTS:
            out[kind.name.lower()] = chunks.unpack_metadata(body, kind)
    return out
