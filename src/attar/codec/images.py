"""Image files <-> arrays: orientation, modes, alpha, metadata. The only module that touches image files."""

from __future__ import annotations

import io
import os
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageOps, PngImagePlugin, UnidentifiedImageError

from attar.codec.files import write_bytes
from attar.errors import ImageError

__all__ = ["MAX_PIXELS", "SUFFIXES", "Picture", "from_array", "read", "write"]

MAX_PIXELS = 1 << 28
"""Default cap on width x height, checked before pixels are decoded."""
SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
"""Suffixes by which images are found in a folder."""
EXACT = {
    "1": "L",
    "L": "L",
    "LA": "LA",
    "La": "LA",
    "RGB": "RGB",
    "RGBA": "RGBA",
    "RGBX": "RGB",
    "RGBa": "RGBA",
}
"""Modes whose 8-bit pixels are taken as they are, and what they are taken as; palettes are expanded."""
FAULTS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    TypeError,
    OverflowError,
    MemoryError,
    ZeroDivisionError,
    RuntimeError,
    LookupError,
    struct.error,
    zlib.error,
    Warning,  # where the caller has made errors of them
    Image.DecompressionBombError,
)
"""What Pillow raises for a broken file, over all of its readers."""
STRIP_PIXELS = 1 << 22
EXIF_PREFIX = b"Exif\0\0"
ORIENTATION = 0x0112
DESCRIPTIVE_TAGS = frozenset({0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298, 0x8769, 0x8825})
"""Description, camera, software, date, artist, copyright, EXIF, GPS: not the layout of a TIFF file."""
XMP_KEY, TIFF_XMP = "XML:com.adobe.xmp", 700
OPENING = threading.Lock()

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Picture:
    """An image in memory. ``pixels``: uint8 (H, W, 1) gray or (H, W, 3) RGB; ``alpha``: uint8 (H, W) or None.

    ``icc``, ``exif`` and ``xmp`` are the bodies of the metadata blocks, or None.
    """

    pixels: Pixels
    alpha: Pixels | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None

    def stripped(self) -> Picture:
        """The picture without its metadata."""
        return replace(self, icc=None, exif=None, xmp=None)

    def to_array(self) -> Pixels:
        """As uint8 (H, W, C): 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha."""
        return self.pixels if self.alpha is None else np.dstack([self.pixels, self.alpha])

    def to_pillow(self) -> Image.Image:
        """As a Pillow image of mode L, LA, RGB or RGBA."""
        colours = self.pixels[..., 0] if self.pixels.shape[2] == 1 else self.pixels
        image = Image.fromarray(np.ascontiguousarray(colours))
        if self.alpha is not None:
            image.putalpha(Image.fromarray(np.ascontiguousarray(self.alpha)))
        return image


def from_array(array: Any) -> Picture:
    """Picture from uint8 (H, W), (H, W, 1), (H, W, 2), (H, W, 3) or (H, W, 4); 2 and 4 have alpha last."""
    pixels = np.asarray(array)
    if pixels.dtype != np.uint8:
        raise ImageError(f"pixels are uint8 (0 to 255), not {pixels.dtype}")
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 2, 3, 4) or 0 in pixels.shape:
        raise ImageError(f"an image is an array of shape (H, W) or (H, W, 1 to 4), not {np.shape(array)}")
    if pixels.shape[2] in (2, 4):
        return Picture(pixels[..., :-1], pixels[..., -1])
    return Picture(pixels)


def read(
    source: str | os.PathLike[str] | bytes | IO[bytes] | Image.Image,
    *,
    convert: bool = False,
    max_pixels: int = MAX_PIXELS,
    name: str | None = None,
) -> Picture:
    """Read an image upright, from a path, its bytes, a binary stream or a Pillow image.

    8-bit gray and RGB, with or without alpha, and palettes are taken exactly. What would lose something
    (CMYK and other colour spaces, more than 8 bits, all but the first of several frames) is converted with
    ``convert`` and refused otherwise. Raises :class:`ImageError`, naming the file or ``name``, also for
    broken and oversized images.
    """
    if not isinstance(source, (str, os.PathLike, bytes, Image.Image)) and not hasattr(source, "read"):
        raise ImageError(
            "an image is read from a path, bytes, a binary stream or a Pillow image, "
            f"not {type(source).__name__}"
        )
    own_name, stream = _named(source)
    name = name or own_name
    try:
        if isinstance(source, Image.Image):
            return _picture(source, name, convert, max_pixels)
        with _opened(stream if stream is not None else source) as image:
            return _picture(image, name, convert, max_pixels)
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError(f"{name}: no such file") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}: not an image, or of an unknown kind") from error
    except FAULTS as error:
        detail = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ImageError(f"{name}: cannot be read: {detail}") from error


def write(path: str | os.PathLike[str], picture: Picture, *, overwrite: bool = True, **options: Any) -> None:
    """Write an image file of the kind that the suffix names, with the metadata that this kind can hold.

    ``options`` go to Pillow (``quality=90``). Whole or not at all; raises :class:`ImageError` for a kind
    that cannot hold the picture and :class:`~attar.errors.AttarError` when the file cannot be written.
    """
    data = encode(picture, format_of(path), name=os.fspath(path), **options)
    write_bytes(path, data, overwrite=overwrite)


def format_of(name: str | os.PathLike[str]) -> str:
    """Pillow's name of the format that the suffix of ``name`` stands for; raises :class:`ImageError`."""
    suffix = (Path(name).suffix or os.fspath(name)).lower()
    kind = Image.registered_extensions().get(suffix)
    if kind is None or kind not in Image.SAVE:
        raise ImageError(f"{name}: no image format to write is known by the suffix {suffix!r}; use .png")
    return kind


def encode(picture: Picture, kind: str, *, name: str = "image", **options: Any) -> bytes:
    """The bytes of an image file of Pillow's format ``kind``, such as ``"PNG"``."""
    buffer = io.BytesIO()
    if kind == "PNG":
        # Runs alone: a fifth of the time of a search for repetitions, of which photographs have next to none.
        options.setdefault("compress_type", zlib.Z_RLE)
    try:
        picture.to_pillow().save(buffer, kind, **_metadata_options(picture, kind), **options)
    except FAULTS as error:
        raise ImageError(f"{name}: {kind} cannot hold the image: {error}") from error
    return buffer.getvalue()


def _metadata_options(picture: Picture, kind: str) -> dict[str, Any]:
    """Arguments by which Pillow writes the metadata into a file of format ``kind``."""
    options: dict[str, Any] = {}
    if picture.icc:
        options["icc_profile"] = picture.icc
    if picture.exif:
        options["exif"] = EXIF_PREFIX + picture.exif
    if picture.xmp and kind == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt(XMP_KEY, picture.xmp.decode("utf-8", "replace"))
    elif picture.xmp and kind == "TIFF":
        tags = Image.Exif()
        tags.load(options.get("exif", b""))
        tags[TIFF_XMP] = picture.xmp
        options["exif"] = tags
    elif picture.xmp:
        options["xmp"] = picture.xmp
    return options


def pad(pixels: Pixels, height: int, width: int) -> Pixels:
    """Extend (H, W, C) at the bottom and right to ``height`` x ``width`` by repeating the edge."""
    missing = (height - pixels.shape[0], width - pixels.shape[1])
    return np.pad(pixels, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge") if any(missing) else pixels


def _named(source: Any) -> tuple[str, IO[bytes] | None]:
    if isinstance(source, bytes):
        return "image", io.BytesIO(source)
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source), None
    return str(getattr(source, "filename", "") or getattr(source, "name", "") or "image"), source


@contextmanager
def _opened(source: Any) -> Iterator[Image.Image]:
    # Pillow's own limit is a module variable; ours is checked by _picture, before pixels are decoded.
    with OPENING:
        theirs, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(source)
        finally:
            Image.MAX_IMAGE_PIXELS = theirs
    with image:
        yield image


def _picture(image: Image.Image, name: str, convert: bool, max_pixels: int) -> Picture:
    if image.width * image.height > max_pixels:
        raise ImageError(
            f"{name}: {image.width} x {image.height} pixels, at most {max_pixels} are accepted: "
            "raise the limit with --max-pixels (max_pixels=)"
        )
    if not image.width or not image.height:
        raise ImageError(f"{name}: the image is empty ({image.width} x {image.height})")
    if (loss := _loss(image)) and not convert:
        raise ImageError(f"{name}: {loss}; pass --convert (convert=True) to accept that")
    upright = ImageOps.exif_transpose(image) if image.getexif().get(ORIENTATION, 1) != 1 else image
    icc = upright.info.get("icc_profile")
    plain = _plain(upright, name)
    if (plain.mode in ("L", "LA") and image.mode not in EXACT) or image.mode == "CMYK":
        icc = None
    return replace(from_array(_array(plain)), icc=icc or None, exif=_exif(image), xmp=_xmp(upright))


def _array(image: Image.Image) -> NDArray[Any]:
    """The pixels, copied in strips: Pillow's way to NumPy needs them all twice more."""
    rows = max(1, STRIP_PIXELS // image.width)
    if rows >= image.height:
        return np.asarray(image)
    out = np.empty((image.height, image.width, len(image.getbands())), dtype=np.uint8)
    for top in range(0, image.height, rows):
        strip = np.asarray(image.crop((0, top, image.width, min(top + rows, image.height))))
        out[top : top + rows] = strip.reshape(*strip.shape[:2], -1)
    return out


def _loss(image: Image.Image) -> str | None:
    """What taking the image as 8-bit gray or RGB would lose, in words, or None."""
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        return f"{image.n_frames} frames, of which only the first would be kept"  # type: ignore[attr-defined]
    deep = any(";16" in str(part) for tile in getattr(image, "tile", ()) for part in tile)
    if deep or image.mode.startswith(("I", "F")):
        return "more than 8 bits a channel, which would be rounded to 8"
    if image.mode not in EXACT and image.mode not in ("P", "PA"):
        return f"colour space {image.mode}, which would be converted to RGB"
    return None


def _plain(image: Image.Image, name: str) -> Image.Image:
    """As one of the modes L, LA, RGB and RGBA."""
    image.load()
    transparent = image.has_transparency_data
    if image.mode in ("P", "PA"):
        return image.convert("RGBA" if transparent else "RGB")
    if image.mode in EXACT:
        target = EXACT[image.mode]
        if transparent and target in ("L", "RGB"):  # one colour is declared transparent
            target += "A"
        return image.convert(target) if target != image.mode else image
    if image.mode.startswith("I") or image.mode == "F":
        return _from_deep_gray(np.asarray(image), name)
    if image.mode == "CMYK" and (profile := image.info.get("icc_profile")):
        try:
            srgb = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(
                image, ImageCms.ImageCmsProfile(io.BytesIO(profile)), srgb, outputMode="RGB"
            )
        except (ImageCms.PyCMSError, OSError):
            converted = None  # a broken profile: the plain conversion is what is left
        if converted is not None:
            return converted
    return image.convert("RGB")


def _from_deep_gray(values: NDArray[Any], name: str) -> Image.Image:
    lowest, highest = float(values.min()), float(values.max())
    if not (lowest >= 0 and highest <= 65535):
        raise ImageError(f"{name}: gray values from {lowest:g} to {highest:g}; 0 to 65535 can be converted")
    return Image.fromarray(np.rint(values.astype(np.float64) / 257).astype(np.uint8))


def _exif(image: Image.Image) -> bytes | None:
    """The EXIF block as it is in the file, but for the orientation, which has been applied."""
    raw: bytes = image.info.get("exif", b"").removeprefix(EXIF_PREFIX)
    if not raw or image.format == "TIFF":
        return _exif_of_tags(image)
    order: Literal["little", "big"] = "little" if raw[:2] == b"II" else "big"
    block = bytearray(raw)
    first = int.from_bytes(block[4:8], order)
    for entry in range(int.from_bytes(block[first : first + 2], order)):
        at = first + 2 + 12 * entry
        if int.from_bytes(block[at : at + 2], order) == ORIENTATION and at + 10 <= len(block):
            block[at + 8 : at + 10] = (1).to_bytes(2, order)
    return bytes(block)


def _exif_of_tags(image: Image.Image) -> bytes | None:
    """An EXIF block of what a TIFF file says among its own tags."""
    found, block = image.getexif(), Image.Exif()
    for tag in DESCRIPTIVE_TAGS & set(found):
        block[tag] = found.get_ifd(tag) if tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo) else found[tag]
    return block.tobytes().removeprefix(EXIF_PREFIX) if len(block) else None


def _xmp(image: Image.Image) -> bytes | None:
    found = image.info.get("xmp") or image.info.get(XMP_KEY)
    return found.encode() if isinstance(found, str) else found or None
