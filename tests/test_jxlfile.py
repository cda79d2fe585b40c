"""JPEG XL files from outside: what the header says is what libjxl gives, and the unsound are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attar.errors import ImageError
from attar.measure import jxlfile

imagecodecs = pytest.importorskip("imagecodecs", reason="imagecodecs is not installed (attar[measure])")


def encoded(shape: tuple[int, ...], dtype: Any = np.uint8, **options: Any) -> tuple[Any, bytes]:
    most = np.iinfo(dtype).max
    pixels = np.random.default_rng(0).integers(0, most, shape, dtype, endpoint=True)
    return pixels, bytes(imagecodecs.jpegxl_encode(pixels, effort=1, lossless=True, **options))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([0, 2, 3, 4]), st.booleans())
def test_the_header_tells_the_size(height: int, width: int, channels: int, container: bool) -> None:
    _, data = encoded((height, width, channels) if channels else (height, width), usecontainer=container)
    found = jxlfile.header(data)
    assert found == jxlfile.Header(width, height, 8, int(channels in (2, 4)), still=True)
    assert jxlfile.is_jxl(data)


@pytest.mark.parametrize(
    ("height", "width"), [(8, 8), (256, 256), (90, 160), (1000, 1200), (9000, 3), (3, 9000)]
)
def test_sizes_of_every_kind(height: int, width: int) -> None:
    data = bytes(imagecodecs.jpegxl_encode(np.zeros((height, width), np.uint8), effort=1))
    assert (jxlfile.header(data).height, jxlfile.header(data).width) == (height, width)


@pytest.mark.parametrize("shape", [(20, 31), (20, 31, 2), (20, 31, 3), (20, 31, 4)])
def test_the_picture_is_what_was_written(shape: tuple[int, ...]) -> None:
    pixels, data = encoded(shape)
    picture = jxlfile.read(data, name="x.jxl", max_pixels=1000)
    assert np.array_equal(picture.to_array(), pixels.reshape(*shape[:2], -1))


@pytest.mark.parametrize(
    ("shape", "dtype", "says"),
    [
        ((20, 31, 3), np.uint16, "16 bits"),
        ((3, 20, 31, 3), np.uint8, "and frames"),
        ((100, 100, 3), np.uint8, "100 x 100 pixels, at most 1000"),
    ],
)
def test_what_is_not_taken_is_named(shape: tuple[int, ...], dtype: Any, says: str) -> None:
    _, data = encoded(shape, dtype)
    with pytest.raises(ImageError, match=f"x.jxl: .*{says}"):
        jxlfile.read(data, name="x.jxl", max_pixels=1000)


def test_many_channels_are_refused_before_they_are_decoded() -> None:
    header = "1" + "00000" + "000" + "00000"  # small, 8 x 8, no ratio
    header += "0" + "0" + "0" + "00" + "1" + "11" + "111111111111"  # not default ... 4096 extra channels
    packed = int(header[::-1], 2).to_bytes(8, "little")
    with pytest.raises(ImageError, match="4096 extra channels"):
        jxlfile.read(b"\xff\x0a" + packed, name="x.jxl", max_pixels=1000)


def test_every_cut_is_refused() -> None:
    for container in (False, True):
        _, data = encoded((9, 9, 3), usecontainer=container)
        for end in range(2, len(data) - 1):
            with pytest.raises(ImageError, match="cannot be read"):
                jxlfile.read(data[:end], name="x.jxl", max_pixels=1000)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80), st.booleans())
def test_nonsense_is_refused_by_name(junk: bytes, container: bool) -> None:
    start = jxlfile.CONTAINER if container else jxlfile.BARE
    try:
        jxlfile.read(start + junk, name="x.jxl", max_pixels=1 << 16)
    except ImageError as error:
        assert str(error).startswith("x.jxl: ")  # noqa: PT017 - an image is as good an answer
