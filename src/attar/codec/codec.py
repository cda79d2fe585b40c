"""``Codec``: image -> ``.attar`` bytes -> image, with one bundle. The only module that imports ONNX Runtime.

::

    image --analysis--> latent --rint--> symbols --entropy--> chunk --container--> file
    file --container--> chunk --entropy--> symbols --synthesis--> image
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from typing import IO, Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from attar.codec import bundle as bundles
from attar.codec import chunks, container, images
from attar.codec.bundle import Bundle
from attar.codec.container import Chunk, Container, Header
from attar.codec.images import Picture
from attar.codec.latents import LatentCoder
from attar.codec.tables import INT32
from attar.errors import BundleError, FormatError, ImageError, ModelMissingError

__all__ = ["Codec", "load"]

PREFERRED = ("photo", "digits")
"""Models that are taken when none is named, the first installed one."""
MAX_BATCH_PIXELS = 1 << 20
"""Images go through a network together up to this many pixels; beyond, memory grows and nothing is won."""

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
        if bundle.manifest.qualities is not None:
            raise BundleError(f"{bundle.source}: a model of variable rate, which needs a later attar")
        self.bundle = bundle
        self.manifest = bundle.manifest
        self.threads = threads

    def __repr__(self) -> str:
        return f"Codec({self.manifest.name!r}, {self.bundle.sha256[:8]}: {self.manifest.accepts})"

    def compress(self, image: Source, *, convert: bool = False, strip: bool = False) -> bytes:
        """The bytes of a ``.attar`` file.

        ``image``: uint8 (H, W) or (H, W, 1 to 4), the last of 2 or 4 channels being alpha, a Pillow image,
        or an image file. ``convert`` accepts what loses something (:func:`attar.codec.images.read`);
        ``strip`` drops the metadata. Raises :class:`ImageError` for an image that cannot be read, or that
        the model cannot take.
        """
        return self.compress_batch([image], convert=convert, strip=strip)[0]

    def compress_batch(
        self, sources: Sequence[Source], *, convert: bool = False, strip: bool = False
    ) -> list[bytes]:
        """A file for each image; images of equal size go through the network together."""
        pictures = [self._accepted(source, convert) for source in sources]
        files: list[bytes] = [b""] * len(pictures)
        for places in _batches([picture.pixels.shape for picture in pictures]):
            batch = np.stack([self.prepare(pictures[place].pixels) for place in places])
            for place, symbols in zip(places, self.analyse(batch), strict=True):
                picture = pictures[place]
                files[place] = self._pack(picture.stripped() if strip else picture, symbols)
        return files

    def decompress(self, data: bytes, *, max_pixels: int = container.MAX_PIXELS) -> NDArray[np.uint8]:
        """Pixels uint8 (H, W, C) of a ``.attar`` file; C is 1 or 3, or 2 or 4 with alpha.

        Raises :class:`FormatError` for a damaged file, :class:`ModelMissingError` for one of another model.
        """
        return self.decompress_batch([data], max_pixels=max_pixels)[0]

    def decompress_batch(
        self, files: Sequence[bytes], *, max_pixels: int = container.MAX_PIXELS
    ) -> list[NDArray[np.uint8]]:
        """Pixels of each file; files of equal size go through the network together."""
        return [picture.to_array() for picture in self.decode_batch(files, max_pixels=max_pixels)]

    def decode(self, data: bytes, *, max_pixels: int = container.MAX_PIXELS) -> Picture:
        """Everything that a ``.attar`` file holds: pixels, alpha and metadata. See :meth:`decompress`."""
        return self.decode_batch([data], max_pixels=max_pixels)[0]

    def decode_batch(
        self, files: Sequence[bytes], *, max_pixels: int = container.MAX_PIXELS
    ) -> list[Picture]:
        """:meth:`decode` of each file; files of equal size go through the network together."""
        parts = [self.unpack(data, max_pixels=max_pixels) for data in files]
        pictures: dict[int, Picture] = {}
        for places in _batches([(part.header.height, part.header.width) for part in parts]):
            batch = np.stack([self.symbols(parts[place]) for place in places])
            for place, pixels in zip(places, self.synthesise(batch), strict=True):
                pictures[place] = _finished(pixels, parts[place])
        return [pictures[place] for place in range(len(parts))]

    def unpack(self, data: bytes, *, max_pixels: int = container.MAX_PIXELS) -> Container:
        """Take a file of this codec's model apart and check all of it but the symbols."""
        part = container.unpack(data, max_pixels=max_pixels)
        if part.header.model != self.bundle.short_id:
            raise ModelMissingError(
                f"the file was made with model {part.header.model.hex()}, "
                f"and {self.manifest.name!r} is {self.bundle.sha256[:8]}"
            )
        size = (part.header.height, part.header.width)
        if fault := self._refusal(size, 1 if part.header.channels < 3 else 3):
            raise FormatError(f"the file declares what its model cannot hold: {fault}")
        if part.header.quality != 0:
            raise FormatError(f"the file declares quality {part.header.quality}; its model has a single rate")
        return part

    def verify(self, data: bytes, *, max_pixels: int = container.MAX_PIXELS) -> int:
        """Check every byte of a file without running a network; returns the number of its symbols."""
        part = self.unpack(data, max_pixels=max_pixels)
        symbols = self.symbols(part)
        _beside_pixels(part)
        return symbols.size

    def prepare(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """What the analysis takes: (H, W, C) padded to the model's multiple, gray repeated for colour."""
        padded = images.pad(pixels, *self.manifest.padded_size(*pixels.shape[:2]))
        return np.repeat(padded, 3, axis=2) if pixels.shape[2] < self.manifest.channels else padded

    def analyse(self, images: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Symbols int32 (B, ..., L) of images uint8 (B, H, W, C) that are already padded."""
        latent = self._run(self._analysis, "image", images)
        expected = (len(images), *self.manifest.latent_shape(*images.shape[1:3]))
        if latent.shape != expected:
            raise BundleError(
                f"{self.bundle.source}: analysis gave a latent of shape {latent.shape}; the manifest says "
                f"{expected}"
            )
        if not np.isfinite(latent).all() or np.abs(latent).max(initial=0) >= INT32.max:
            raise BundleError(
                f"{self.bundle.source}: analysis gave latents that are not finite or exceed int32"
            )
        return np.rint(latent).astype(np.int32)

    def synthesise(self, symbols: NDArray[np.int32]) -> NDArray[np.uint8]:
        """Images uint8 (B, H, W, C), padded, of symbols int32 (B, ..., L)."""
        image = self._run(self._synthesis, "symbols", symbols.astype(np.float32))
        if image.ndim != 4 or image.shape[0] != len(symbols) or image.shape[3] != self.manifest.channels:
            raise BundleError(
                f"{self.bundle.source}: synthesis gave images of shape {image.shape}; (B, H, W, "
                f"{self.manifest.channels}) expected"
            )
        if np.isnan(image.min(initial=0)):
            raise FormatError("the symbols are far outside of what the model can decode")
        np.clip(image, 0, 1, out=image)
        image *= np.float32(255)
        return _to_uint8(image)

    def symbols(self, part: Container) -> NDArray[np.int32]:
        """Decode and check the symbols int32 (..., L) of one file."""
        shape = self.manifest.latent_shape(part.header.height, part.header.width)
        return self.latents.decode(part.chunks[Chunk.LATENTS], part.header_bytes, shape)

    def _pack(self, picture: Picture, symbols: NDArray[np.int32]) -> bytes:
        height, width, colours = picture.pixels.shape
        header = Header(colours + (picture.alpha is not None), width, height, self.bundle.short_id)
        bodies = {Chunk.LATENTS: self.latents.encode(symbols, container.write_header(header))}
        if picture.alpha is not None:
            bodies[Chunk.ALPHA] = chunks.pack_alpha(picture.alpha)
        for kind, body in ((Chunk.ICC, picture.icc), (Chunk.EXIF, picture.exif), (Chunk.XMP, picture.xmp)):
            if body:
                bodies[kind] = chunks.pack_metadata(body, kind)
        return container.pack(header, bodies)

    def _accepted(self, source: Source, convert: bool) -> Picture:
        if isinstance(source, Picture):
            picture = source
        else:
            picture = (
                images.from_array(source)
                if isinstance(source, np.ndarray)
                else images.read(source, convert=convert)
            )
        if fault := self._refusal(picture.pixels.shape[:2], picture.pixels.shape[2]):
            name = f"{source}: " if isinstance(source, (str, os.PathLike)) else ""
            raise ImageError(f"{name}{fault}")
        return picture

    def _refusal(self, size: tuple[int, ...], channels: int) -> str | None:
        fits = self.manifest.size is None or tuple(size) == self.manifest.size
        if fits and channels <= self.manifest.channels:
            return None
        given = f"{'gray' if channels == 1 else 'RGB'}, {size[0]} x {size[1]} (height x width)"
        return f"{given}; model {self.manifest.name!r} takes {self.manifest.accepts}"

    @cached_property
    def latents(self) -> LatentCoder:
        """Codes the latents with the tables of the bundle."""
        return LatentCoder(self.manifest, self.bundle.tables)

    @cached_property
    def _analysis(self) -> onnxruntime.InferenceSession:
        return self._session("analysis")

    @cached_property
    def _synthesis(self) -> onnxruntime.InferenceSession:
        return self._session("synthesis")

    def _session(self, name: str) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        if self.threads is not None:
            options.intra_op_num_threads = self.threads
        try:
            return onnxruntime.InferenceSession(
                self.bundle.graphs[name], options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise BundleError(
                f"{self.bundle.source}: {name}.onnx cannot be loaded: {_first_line(error)}"
            ) from error

    def _run(
        self, session: onnxruntime.InferenceSession, name: str, values: NDArray[Any]
    ) -> NDArray[np.float32]:
        try:
            (result,) = session.run(None, {name: values})
        except Exception as error:
            raise BundleError(
                f"{self.bundle.source}: the network failed on {name} {values.shape}: {_first_line(error)}"
            ) from error
        if result.dtype != np.float32:
            raise BundleError(f"{self.bundle.source}: the network gave {result.dtype}; float32 expected")
        return result  # type: ignore[no-any-return]


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:300]


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


def _finished(pixels: NDArray[np.uint8], part: Container) -> Picture:
    """The picture of one file from the padded pixels (H, W, C) of its model."""
    height, width, channels = part.header.height, part.header.width, part.header.channels
    if pixels.shape[0] < height or pixels.shape[1] < width:
        raise FormatError(
            f"the model gave {pixels.shape[1]} x {pixels.shape[0]} pixels for {width} x {height}"
        )
    cropped = pixels[:height, :width]
    if channels < 3 and cropped.shape[2] == 3:
        cropped = _to_uint8(cropped.mean(axis=2, keepdims=True))
    return Picture(cropped, **_beside_pixels(part))


def _beside_pixels(part: Container) -> dict[str, Any]:
    """Alpha and metadata of a file, as arguments of :class:`Picture`."""
    out: dict[str, Any] = {}
    for kind, body in part.chunks.items():
        if kind is Chunk.ALPHA:
            out["alpha"] = chunks.unpack_alpha(body, part.header.height, part.header.width)
        elif kind is not Chunk.LATENTS:
            out[kind.name.lower()] = chunks.unpack_metadata(body, kind)
    return out


def _to_uint8(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Rounded half to even; ``values`` are within 0..255, and are overwritten."""
    rounded: NDArray[np.uint8] = np.rint(values, out=values).astype(np.uint8)
    return rounded
