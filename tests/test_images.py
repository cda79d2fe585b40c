from __future__ import annotations

import io
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

import toy_bundle
from attar.codec import images
from attar.codec.images import Picture
from attar.errors import AttarError, ImageError

RGB = toy_bundle.photo(20, 30)
GRAY = RGB[..., 0]
ALPHA = np.arange(600, dtype=np.uint16).reshape(20, 30).astype(np.uint8)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'></x:xmpmeta>"


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def exif_with(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x010F] = "A camera"
    exif[0x0112] = orientation
    return exif.tobytes()


@pytest.mark.parametrize(
    ("array", "mode"),
    [(GRAY, "L"), (RGB, "RGB"), (np.dstack([GRAY, ALPHA]), "LA"), (np.dstack([RGB, ALPHA]), "RGBA")],
)
def test_eight_bit_images_are_taken_exactly(array: np.ndarray, mode: str) -> None:
    image = Image.fromarray(array)
    assert image.mode == mode
    for source in (image, encoded(image), io.BytesIO(encoded(image))):
        picture = images.read(source)
        assert np.array_equal(np.squeeze(picture.to_array()), array)
        assert picture.to_pillow().mode == mode
    assert np.array_equal(images.from_array(array).to_array().squeeze(), array)


def test_palettes_bits_and_transparent_colours_are_expanded_exactly() -> None:
    palette = Image.fromarray(RGB).quantize(16)
    assert np.array_equal(images.read(encoded(palette)).pixels, np.asarray(palette.convert("RGB")))
    bits = Image.fromarray(GRAY).convert("1")
    assert np.array_equal(images.read(encoded(bits)).pixels[..., 0], np.asarray(bits.convert("L")))
    see_through = images.read(encoded(palette, transparency=3))
    assert np.array_equal(see_through.alpha, np.where(np.asarray(palette) == 3, 0, 255))
    one_gray = images.read(encoded(Image.fromarray(GRAY), transparency=int(GRAY[0, 0])))
    assert np.array_equal(one_gray.alpha, np.where(GRAY[0, 0] == GRAY, 0, 255))
    assert np.array_equal(one_gray.pixels[..., 0], GRAY)


def deep_png(array: np.ndarray, height: int = 20, width: int = 30) -> bytes:
    """A 16-bit RGB PNG, which Pillow cannot write and reads as 8 bits without a word."""
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    size = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", size)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


LOSSY = {
    "CMYK": (encoded(Image.fromarray(RGB).convert("CMYK"), "TIFF"), "colour space CMYK"),
    "LAB": (encoded(Image.fromarray(RGB).convert("LAB"), "TIFF"), "colour space LAB"),
    "16-bit gray": (encoded(Image.fromarray(GRAY.astype(np.uint16) * 257)), "more than 8 bits"),
    "16-bit RGB": (deep_png(RGB.astype(np.uint16) * 257), "more than 8 bits"),
    "32-bit": (encoded(Image.fromarray(GRAY.astype(np.int32) * 257), "TIFF"), "more than 8 bits"),
    "float": (encoded(Image.fromarray(GRAY.astype(np.float32) * 257), "TIFF"), "more than 8 bits"),
    "frames": (
        encoded(Image.fromarray(GRAY), "GIF", save_all=True, append_images=[Image.fromarray(255 - GRAY)]),
        "2 frames, of which only the first",
    ),
}


@pytest.mark.parametrize("case", LOSSY)
def test_what_loses_something_needs_convert(case: str, tmp_path: Path) -> None:
    data, message = LOSSY[case]
    path = tmp_path / "image"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=f"image: {message}.*pass --convert"):
        images.read(path)
    pixels = images.read(path, convert=True).pixels
    expected = RGB if case in ("CMYK", "LAB", "16-bit RGB") else GRAY[..., None]
    assert pixels.shape[:2] == (20, 30)
    if case != "frames":
        tolerance = {"LAB": 6, "16-bit RGB": 1}.get(case, 0)
        assert np.abs(pixels.astype(int) - expected).max() <= tolerance


def test_deep_values_outside_of_16_bits_are_refused_even_with_convert() -> None:
    for values in (
        GRAY.astype(np.int32) * 70000,
        -GRAY.astype(np.float32) - 1,
        np.full((2, 2), np.nan, np.float32),
    ):
        with pytest.raises(ImageError, match="0 to 65535 can be converted"):
            images.read(encoded(Image.fromarray(values), "TIFF"), convert=True)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_and_not_applied_twice(orientation: int) -> None:
    data = encoded(Image.fromarray(RGB), "JPEG", quality=100, subsampling=0, exif=exif_with(orientation))
    picture = images.read(data)
    plain = images.read(encoded(Image.fromarray(RGB), "JPEG", quality=100, subsampling=0)).pixels
    turns = {1: plain, 2: plain[:, ::-1], 3: plain[::-1, ::-1], 4: plain[::-1], 5: plain.transpose(1, 0, 2)}
    turns |= {6: np.rot90(plain, -1), 7: plain[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(plain)}
    assert np.array_equal(picture.pixels, turns[orientation])
    again = Image.Exif()
    again.load(picture.exif)
    assert (again[0x010F], again[0x0112]) == ("A camera", 1)
    written = images.read(images.encode(picture, "PNG"))
    assert np.array_equal(written.pixels, picture.pixels)
    assert written.exif == picture.exif


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_does_not_stop_reading() -> None:
    good = exif_with(6)
    for exif in (good[:9], good[:15], good[:14] + b"\xff" * 20, b"Exif\0\0garbage!"):
        picture = images.read(encoded(Image.fromarray(RGB), "JPEG", exif=exif))
        assert sorted(picture.pixels.shape[:2]) == [20, 30]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_metadata_survives_reading_and_writing(kind: str) -> None:
    picture = Picture(RGB, None, icc=SRGB, exif=exif_with(1).removeprefix(b"Exif\0\0"), xmp=XMP)
    again = images.read(images.encode(picture, kind))
    assert again.icc == SRGB
    assert again.xmp == XMP
    exif = Image.Exif()
    exif.load(again.exif)
    assert exif[0x010F] == "A camera"
    bare = picture.stripped()
    assert (bare.icc, bare.exif, bare.xmp) == (None, None, None)
    assert bare.pixels is RGB


def test_a_tiff_keeps_its_words_and_not_its_layout() -> None:
    exif = Image.Exif()
    exif[0x010F] = "A camera"
    exif.get_ifd(0x8769)[0x9003] = "2024:01:01 00:00:00"
    block = Image.Exif()
    block.load(images.read(encoded(Image.fromarray(RGB), "TIFF", exif=exif.tobytes())).exif)
    assert set(block) == {0x010F, 0x8769}
    assert block.get_ifd(0x8769) == {0x9003: "2024:01:01 00:00:00"}
    assert images.read(encoded(Image.fromarray(RGB), "TIFF")).exif is None


def test_a_pillow_image_of_the_caller_stays_as_it_is() -> None:
    with Image.open(io.BytesIO(encoded(Image.fromarray(RGB), "JPEG", exif=exif_with(6)))) as image:
        assert images.read(image).pixels.shape == (30, 20, 3)
        assert image.size == (30, 20)
        assert image.getexif()[0x0112] == 6


def test_a_profile_of_other_channels_is_dropped_with_them() -> None:
    data = encoded(Image.fromarray(RGB).convert("CMYK"), "JPEG", icc_profile=b"not a CMYK profile")
    assert images.read(data, convert=True).icc is None


@pytest.mark.parametrize("suffix", sorted(images.SUFFIXES - {".pgm"}))
def test_every_listed_suffix_can_be_written_and_read(tmp_path: Path, suffix: str) -> None:
    images.write(tmp_path / f"a{suffix}", Picture(RGB))
    assert images.read(tmp_path / f"a{suffix}").pixels.shape == RGB.shape


def test_broken_images_are_refused_by_name(tmp_path: Path) -> None:
    good = encoded(Image.fromarray(RGB))
    path = tmp_path / "broken.png"
    for data in (b"", b"no image", good[:40], good[: len(good) // 2]):
        path.write_bytes(data)
        with pytest.raises(
            ImageError, match=r"broken\.png: (not an image, or of an unknown kind|cannot be read)"
        ):
            images.read(path)
    with pytest.raises(ImageError, match=r"none\.png: no such file"):
        images.read(tmp_path / "none.png")
    with pytest.raises(ImageError, match="Is a directory"):
        images.read(tmp_path)


def test_oversized_images_are_refused_before_their_pixels_are_decoded() -> None:
    huge = deep_png(RGB, 30_000_000, 30_000_000)
    with pytest.raises(ImageError, match="30000000 x 30000000 pixels, at most 268435456"):
        images.read(huge)
    with pytest.raises(ImageError, match="30 x 20 pixels, at most 599"):
        images.read(encoded(Image.fromarray(RGB)), max_pixels=599)


def test_pillows_own_limit_is_put_back() -> None:
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises(ImageError):
        images.read(b"no image")
    images.read(encoded(Image.fromarray(RGB)))
    assert before == Image.MAX_IMAGE_PIXELS
    assert before is not None


def test_nothing_is_warned_about_a_good_image() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        images.read(encoded(Image.fromarray(RGB)))
    assert caught == []


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (RGB.astype(float), "uint8 .* not float64"),
        (RGB[None], r"not \(1, 20, 30, 3\)"),
        (np.zeros((4, 4, 5), np.uint8), r"not \(4, 4, 5\)"),
        (np.zeros((0, 4), np.uint8), r"not \(0, 4\)"),
        (np.zeros(4, np.uint8), r"not \(4,\)"),
    ],
)
def test_arrays_that_are_no_images(array: np.ndarray, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        images.from_array(array)


def test_writing_refuses_what_the_format_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"a\.xyz: no image format .* '\.xyz'; use \.png"):
        images.write(tmp_path / "a.xyz", Picture(RGB))
    with pytest.raises(ImageError, match=r"a\.jpg: JPEG cannot hold the image"):
        images.write(tmp_path / "a.jpg", Picture(RGB, ALPHA))
    images.write(tmp_path / "a.png", Picture(RGB, ALPHA))
    with pytest.raises(AttarError, match="exists already"):
        images.write(tmp_path / "a.png", Picture(RGB), overwrite=False)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert images.read(tmp_path / "a.png").alpha is not None


def test_padding_repeats_the_edge() -> None:
    padded = images.pad(RGB, 24, 32)
    assert padded.shape == (24, 32, 3)
    assert np.array_equal(padded[:20, :30], RGB)
    assert np.array_equal(padded[23, 31], RGB[19, 29])
    assert images.pad(RGB, 20, 30) is RGB
