"""Rival codecs behind one interface, all PNG to PNG: 8-bit gray or RGB in, real files, 8-bit gray or RGB out.

::

    jpeg, jpeg-opt                  Pillow's libjpeg-turbo, 4:2:0; -opt: tables optimised for each image
    webp, webp-m0 ... webp-m6       Pillow's libwebp, method 6 unless named (CompressAI's anchor is webp-m4)
    avif, avif-444 [-s0..-s10] [-psnr]  Pillow's libavif, 4:2:0, speed 6 unless named; -psnr: tuned for PSNR
    jp2                             Pillow's OpenJPEG, 9/7 wavelet; the quality is a PSNR in dB
    jxl, jxl-e1 ... jxl-e9          libjxl of imagecodecs, effort 7 unless named
    png, webp-lossless, jxl-lossless    lossless references: one size, no quality
    attar:NAME, attar:PATH          an Attar bundle, installed or a file; attar-e1: ... attar-e9: with that --effort
    autoencoder:A.onnx+B.onnx       an exported encoder and decoder, see attar.measure.autoencoder
    ext:ENCODE :: DECODE [:: Q,...] any program, see attar.measure.external
    LABEL=CODEC                     any of these under a name of one's own, as in "mine=attar:my.attarmodel"

A codec that this machine lacks is an :class:`Absent` with the reason, so that a report can say so. Encoders
and decoders run on one thread where their library lets one choose.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import AvifImagePlugin, Image, features

from attar.errors import AttarError
from attar.plainjson import nearest

__all__ = ["EXAMPLES", "Absent", "Anchor", "Pixels", "Scale", "check_quality", "find", "split_names"]

Pixels = NDArray[np.uint8]
"""An image: uint8 ``(H, W, C)``, gray (1) or RGB (3)."""


@dataclass(frozen=True)
class Scale:
    """The numbers that a codec takes as quality; ``whole``: only integers do."""

    unit: str
    lowest: float
    highest: float
    defaults: tuple[float, ...]
    whole: bool = True


class Anchor(Protocol):
    """One codec at all its qualities; ``scale`` is None where there is one only (lossless, or fixed rate)."""

    @property
    def name(self) -> str:
        """The name under which it is asked for and reported."""

    @property
    def version(self) -> str:
        """The libraries that do the work, with their versions."""

    @property
    def scale(self) -> Scale | None:
        """What the quality means."""

    def encode(self, image: Pixels, quality: float | None) -> bytes:
        """The whole file."""

    def decode(self, data: bytes) -> Pixels:
        """The image in the file."""


@dataclass(frozen=True)
class Absent:
    """A codec that was asked for and that this machine does not have."""

    name: str
    reason: str


STEPS = tuple(range(5, 100, 10))
PERCENT = Scale("quality", 1, 100, STEPS)
JXL_PERCENT = Scale("quality", 1, 99, STEPS)
DECIBELS = Scale("dB", 15, 60, tuple(range(24, 47, 2)), whole=False)

EXAMPLES = (
    "jpeg",
    "jpeg-opt",
    "webp",
    "webp-m4",
    "avif",
    "avif-444",
    "avif-s4",
    "avif-psnr",
    "avif-444-psnr",
    "jp2",
    "jxl",
    "jxl-e9",
    "png",
    "webp-lossless",
    "jxl-lossless",
)
"""Names to choose from; variants follow the table above."""
LABELLED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._+-]{0,39})=(.+)", re.DOTALL)
EXTERNAL = re.compile(r"\s*([A-Za-z0-9._+-]+=)?ext:")
OURS = re.compile(r"attar(?:-e([1-9]))?")
OTHERS = "attar:NAME, attar:FILE, autoencoder:A+B, ext:ENCODE :: DECODE"


@dataclass(frozen=True)
class PillowAnchor:
    """A format that Pillow writes and reads; ``options`` turns a quality into the arguments of ``save``."""

    name: str
    format: str
    version: str
    scale: Scale | None
    options: Callable[[Any, Pixels], Mapping[str, Any]]

    def encode(self, image: Pixels, quality: float | None) -> bytes:
        """The file that Pillow writes, without metadata."""
        buffer = io.BytesIO()
        Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image).save(
            buffer, format=self.format, **self.options(quality, image)
        )
        return buffer.getvalue()

    def decode(self, data: bytes) -> Pixels:
        """The image that Pillow reads."""
        try:
            with Image.open(io.BytesIO(data), formats=(self.format,)) as image:
                pixels = np.asarray(image if image.mode in {"L", "RGB"} else image.convert("RGB"))
        except (OSError, ValueError, SyntaxError) as error:
            raise AttarError(f"{self.name}: its file cannot be decoded: {error}") from error
        return pixels[..., None] if pixels.ndim == 2 else pixels


@dataclass(frozen=True)
class JpegXlAnchor:
    """JPEG XL through imagecodecs; quality as in ``JxlEncoderDistanceFromQuality``, None is lossless."""

    name: str
    version: str
    scale: Scale | None
    effort: int

    def encode(self, image: Pixels, quality: float | None) -> bytes:
        """A bare JPEG XL code stream."""
        import imagecodecs

        pixels = image.squeeze(2) if image.shape[2] == 1 else image
        mode: dict[str, Any] = {"lossless": True} if quality is None else {"distance": _jxl_distance(quality)}
        return bytes(imagecodecs.jpegxl_encode(pixels, effort=self.effort, numthreads=1, **mode))

    def decode(self, data: bytes) -> Pixels:
        """The image that libjxl reads."""
        import imagecodecs

        pixels = imagecodecs.jpegxl_decode(data, numthreads=1)
        return np.asarray(pixels[..., None] if pixels.ndim == 2 else pixels)


@dataclass(frozen=True)
class AttarAnchor:
    """An Attar bundle, through the public door that every user has."""

    name: str
    version: str
    scale: Scale | None
    codec: Any
    effort: int = 0

    def encode(self, image: Pixels, quality: float | None) -> bytes:
        """A ``.attar`` file."""
        wanted = None if quality is None else int(quality)
        return bytes(self.codec.compress(image, quality=wanted, effort=self.effort))

    def decode(self, data: bytes) -> Pixels:
        """The image in a ``.attar`` file."""
        return np.asarray(self.codec.decompress(data))


def find(name: str) -> Anchor | Absent:
    """The codec called ``name``; :class:`AttarError`, with the nearest name, for one that means nothing."""
    if labelled := LABELLED.fullmatch(name):
        label, plain = labelled.groups()
        found: Any = _find(plain)
        if isinstance(found, Absent):
            return replace(found, name=label)
        return replace(found, name=label, version=f"{found.version}: {plain}")
    return _find(name)


def _find(name: str) -> Anchor | Absent:
    kind, _, rest = name.partition(":")
    if kind == "ext":
        from attar.measure import external

        return external.parse(name)
    if kind == "autoencoder":
        from attar.measure import autoencoder

        return autoencoder.parse(name)
    if rest and (match := OURS.fullmatch(kind)):
        return _attar(name, rest, int(match[1] or 0))
    for pattern, build in FAMILIES.items():
        if match := re.fullmatch(pattern, name):
            return build(name, match)
    near = nearest(name, EXAMPLES)
    hint = f"did you mean {near!r}? " if near else ""
    raise AttarError(f"no codec is called {name!r}: {hint}known are {', '.join(EXAMPLES)}, {OTHERS}")


def split_names(values: Sequence[str]) -> list[str]:
    """``["jpeg,webp", "ext:a b,c :: d"]`` -> names, each once; an ``ext:`` codec is not split."""
    names = [
        part.strip() for value in values for part in ([value] if EXTERNAL.match(value) else value.split(","))
    ]
    return list(dict.fromkeys(name for name in names if name))


def check_quality(anchor: Anchor, quality: float) -> float:
    """``quality`` if the codec takes it, else :class:`AttarError` with the range that it takes."""
    scale = anchor.scale
    if scale is None:
        raise AttarError(f"{anchor.name} has no quality setting; {quality:g} was asked for")
    if not scale.lowest <= quality <= scale.highest:
        raise AttarError(
            f"{anchor.name} takes a {scale.unit} from {scale.lowest:g} to {scale.highest:g}, not {quality:g}"
        )
    if scale.whole and quality != int(quality):
        raise AttarError(f"{anchor.name} takes a whole {scale.unit}, not {quality:g}")
    return int(quality) if scale.whole else quality


def _jxl_distance(quality: float) -> float:
    if quality >= 30:
        return 0.1 + (100 - quality) * 0.09
    return 53 / 3000 * quality * quality - 23 / 20 * quality + 25


def _pillow(library: str, feature: str) -> str:
    return f"Pillow {version('pillow')}, {library} {features.version(feature)}"


def _lacks(name: str, feature: str) -> Absent | None:
    if features.check(feature):
        return None
    return Absent(
        name, f"this Pillow ({version('pillow')}) was built without {feature}: reinstall it from a wheel"
    )


def _jpeg(name: str, match: re.Match[str]) -> Anchor | Absent:
    def options(quality: Any, _: Pixels) -> dict[str, Any]:
        return {"quality": quality, "subsampling": "4:2:0", "optimize": bool(match[1])}

    library = (
        _pillow("libjpeg-turbo", "libjpeg_turbo")
        if features.check("libjpeg_turbo")
        else _pillow("libjpeg", "jpg")
    )
    return _lacks(name, "jpg") or PillowAnchor(name, "JPEG", library, PERCENT, options)


def _webp(name: str, match: re.Match[str]) -> Anchor | Absent:
    method = int(match[1] or 6)
    return _lacks(name, "webp") or PillowAnchor(
        name,
        "WEBP",
        f"{_pillow('libwebp', 'webp')}, method {method}",
        PERCENT,
        lambda quality, _: {"quality": quality, "method": method},
    )


def _avif(name: str, match: re.Match[str]) -> Anchor | Absent:
    speed = int(match[2] or 6)
    if absent := _lacks(name, "avif"):
        return absent

    def options(quality: Any, image: Pixels) -> dict[str, Any]:
        colour = {"subsampling": "4:4:4" if match[1] else "4:2:0"} if image.shape[2] == 3 else {}
        tune = {"advanced": {"tune": "psnr"}} if match[3] else {}
        return {"quality": quality, "speed": speed, "max_threads": 1, **colour, **tune}

    encoder = f"aom {AvifImagePlugin.get_codec_version('aom') or 'absent'}"
    library = f"{_pillow('libavif', 'avif')}, {encoder}, speed {speed}{', tune psnr' if match[3] else ''}"
    return PillowAnchor(name, "AVIF", library, PERCENT, options)


def _jp2(name: str, _: re.Match[str]) -> Anchor | Absent:
    def options(quality: Any, image: Pixels) -> dict[str, Any]:
        return {
            "quality_mode": "dB",
            "quality_layers": [quality],
            "irreversible": True,
            "mct": int(image.shape[2] == 3),
        }

    return _lacks(name, "jpg_2000") or PillowAnchor(
        name, "JPEG2000", _pillow("OpenJPEG", "jpg_2000"), DECIBELS, options
    )


def _jxl(name: str, match: re.Match[str], *, lossless: bool = False) -> Anchor | Absent:
    effort = 7 if lossless else int(match[1] or 7)
    try:
        import imagecodecs
    except ImportError:
        return Absent(name, "imagecodecs is not installed: pip install 'attar[measure]'")
    if not imagecodecs.JPEGXL.available:
        return Absent(name, f"this imagecodecs ({version('imagecodecs')}) was built without libjxl")
    library = f"imagecodecs {version('imagecodecs')}, {imagecodecs.jpegxl_version()}, effort {effort}"
    return JpegXlAnchor(name, library, None if lossless else JXL_PERCENT, effort)


def _png(name: str, _: re.Match[str]) -> Anchor | Absent:
    return PillowAnchor(name, "PNG", _pillow("zlib", "zlib"), None, lambda *_: {"optimize": True})


def _webp_lossless(name: str, _: re.Match[str]) -> Anchor | Absent:
    return _lacks(name, "webp") or PillowAnchor(
        name,
        "WEBP",
        f"{_pillow('libwebp', 'webp')}, method 6",
        None,
        lambda *_: {"lossless": True, "method": 6, "quality": 100},
    )


FAMILIES: Mapping[str, Callable[[str, re.Match[str]], Anchor | Absent]] = {
    r"jpeg(-opt)?": _jpeg,
    r"webp(?:-m([0-6]))?": _webp,
    r"avif(-444)?(?:-s([0-9]|10))?(-psnr)?": _avif,
    r"jp2": _jp2,
    r"jxl(?:-e([1-9]))?": _jxl,
    r"png": _png,
    r"webp-lossless": _webp_lossless,
    r"jxl-lossless": partial(_jxl, lossless=True),
}


def _attar(name: str, model: str, effort: int) -> Anchor | Absent:
    import attar

    try:
        codec = attar.load(model, threads=1)
    except AttarError as error:
        return Absent(name, str(error))
    manifest = codec.bundle.manifest
    scale = None
    if manifest.qualities is not None:
        lowest, highest = manifest.qualities
        defaults = tuple(sorted({round(float(quality)) for quality in np.linspace(lowest, highest, 8)}))
        scale = Scale("quality", lowest, highest, defaults)
    model = f"{manifest.name} {manifest.version} ({codec.bundle.sha256[:8]})" + (
        f", effort {effort}" if effort else ""
    )
    runtime = f"onnxruntime {version('onnxruntime')}"
    return AttarAnchor(name, f"attar {attar.__version__}, {model}, {runtime}", scale, codec, effort)
