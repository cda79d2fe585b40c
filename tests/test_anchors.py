"""Every rival codec through its one interface: real files, the picture back, absence and typos named."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from PIL import Image

import attar
from attar.errors import AttarError
from attar.measure.anchors import EXAMPLES, Absent, check_quality, find, split_names
from attar.measure.metrics import psnr

FORMATS = {"jpeg": "JPEG", "webp": "WEBP", "avif": "AVIF", "jp2": "JPEG2000", "png": "PNG"}
LOSSLESS = ("png", "webp-lossless", "jxl-lossless")


def picture(channels, height=70, width=90):
    y, x = np.mgrid[0:height, 0:width]
    planes = [128 + 90 * np.sin(x / (11 + c)) * np.cos(y / (9 + c)) for c in range(channels)]
    grain = np.random.default_rng(3).normal(0, 4, (height, width, channels))
    return np.clip(np.rint(np.stack(planes, -1) + grain), 0, 255).astype(np.uint8)


def present(name):
    anchor = find(name)
    if isinstance(anchor, Absent):
        pytest.skip(anchor.reason)
    return anchor


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", EXAMPLES)
def test_a_file_comes_back_as_the_picture(name, channels):
    anchor = present(name)
    image = picture(channels)
    qualities = [None] if anchor.scale is None else [anchor.scale.defaults[0], anchor.scale.defaults[-1]]
    sizes, errors = [], []
    for quality in qualities:
        data = anchor.encode(image, quality)
        decoded = anchor.decode(data)
        assert decoded.dtype == np.uint8
        assert decoded.shape[:2] == image.shape[:2]
        sizes.append(len(data))
        errors.append(np.abs(decoded.astype(int) - image).mean())
    assert anchor.name == name
    assert any(digit.isdigit() for digit in anchor.version)
    if anchor.scale is None:
        assert errors == [0]
    else:
        assert sizes[0] < sizes[1] < image.size
        assert errors[1] < errors[0]
        assert errors[1] < 6


@pytest.mark.parametrize(("name", "expected"), FORMATS.items())
def test_files_are_what_their_name_says(name, expected):
    anchor = present(name)
    data = anchor.encode(picture(3), None if anchor.scale is None else anchor.scale.defaults[4])
    assert Image.open(io.BytesIO(data)).format == expected


def test_variants_do_what_they_say():
    image = picture(3, 120, 160)
    sizes = {name: len(present(name).encode(image, 60)) for name in ("jpeg", "jpeg-opt")}
    assert sizes["jpeg-opt"] < sizes["jpeg"]
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2, 0] = 255  # chroma at the finest scale, which 4:2:0 cannot hold
    plain, full = present("avif"), present("avif-444")
    assert psnr(stripes, full.decode(full.encode(stripes, 90))) > 3 + psnr(
        stripes, plain.decode(plain.encode(stripes, 90))
    )
    assert "speed 3" in find("avif-444-s3-psnr").version
    assert "effort 9" in present("jxl-e9").version
    assert "method 4" in find("webp-m4").version
    digit = picture(1, 28, 28)[..., 0]
    codec = attar.load("digits")
    for name, effort in (("attar:digits", 0), ("attar-e2:digits", 2)):
        assert present(name).encode(digit, None) == codec.compress(digit, effort=effort)
    assert "effort 2" in present("attar-e2:digits").version
    assert "effort" not in present("attar:digits").version


def test_jpeg_xl_quality_is_libjxls():
    from attar.measure.anchors import _jxl_distance

    assert [round(_jxl_distance(q), 3) for q in (90, 75, 30, 5)] == [1.0, 2.35, 6.4, 19.692]


@pytest.mark.parametrize(
    ("typo", "meant"), [("jpg", "jpeg"), ("webpp", "webp"), ("avif444", "avif-444"), ("jxl-10", "jxl")]
)
def test_a_typo_names_the_nearest_codec(typo, meant):
    with pytest.raises(AttarError, match=f"no codec is called '{typo}': did you mean '{meant}"):
        find(typo)
    with pytest.raises(AttarError, match="no codec is called 'x265': known are jpeg"):
        find("x265")


def test_quality_out_of_range():
    jpeg, png, jp2 = present("jpeg"), present("png"), present("jp2")
    assert check_quality(jpeg, 75.0) == 75
    assert check_quality(jp2, 31.5) == 31.5
    with pytest.raises(AttarError, match="jpeg takes a quality from 1 to 100, not 0"):
        check_quality(jpeg, 0)
    with pytest.raises(AttarError, match=r"jpeg takes a whole quality, not 7\.5"):
        check_quality(jpeg, 7.5)
    with pytest.raises(AttarError, match="jp2 takes a dB from 15 to 60, not 99"):
        check_quality(jp2, 99)
    with pytest.raises(AttarError, match="png has no quality setting; 50 was asked for"):
        check_quality(png, 50)


def test_damaged_files_are_errors():
    for name in ("jpeg", "webp", "avif", "jp2", "png"):
        anchor = present(name)
        data = anchor.encode(picture(3), None if anchor.scale is None else anchor.scale.defaults[3])
        for broken in (b"", data[:20], b"nonsense" * 9):
            with pytest.raises(AttarError, match=f"{name}: its file cannot be decoded"):
                anchor.decode(broken)


def test_absent_codecs_say_why(monkeypatch):
    missing = find("attar:no-such-model")
    assert isinstance(missing, Absent)
    assert "no-such-model" in missing.reason
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    jxl = find("jxl")
    assert isinstance(jxl, Absent)
    assert "pip install 'attar[measure]'" in jxl.reason


def test_names_are_split_at_commas_but_not_inside_commands():
    command = "ext:tool {in} {out} --x=1,2 :: tool {in} {out}"
    names = ["jpeg, webp", command, "webp,png,", f"tool={command}"]
    assert split_names(names) == ["jpeg", "webp", command, "png", f"tool={command}"]


def test_a_codec_can_have_a_label():
    mine = find("mine=jpeg-opt")
    assert mine.name == "mine"
    assert mine.version.endswith(": jpeg-opt")
    assert mine.encode(picture(3), 50) == find("jpeg-opt").encode(picture(3), 50)
    assert find("mine=ext:no-tool {in} {out} :: cp {in} {out}") == Absent(
        "mine", "the program 'no-tool' was not found"
    )
    assert find("ext:cp {in} {out} --q=3 :: cp {in} {out}").name.startswith("ext:")
    with pytest.raises(AttarError, match="no codec is called 'jpg'"):
        find("mine=jpg")
