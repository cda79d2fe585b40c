"""External programs as codecs, with Python itself as the program."""

from __future__ import annotations

import shlex
import sys

import numpy as np
import pytest

from attar.errors import AttarError
from attar.measure.anchors import Absent, find

PYTHON = shlex.quote(sys.executable)
ENCODE = (
    "from PIL import Image; import sys; Image.open(sys.argv[1]).save(sys.argv[2], quality=int(sys.argv[3]))"
)
DECODE = "from PIL import Image; import sys; Image.open(sys.argv[1]).save(sys.argv[2])"
JPEG = (
    f'ext:{PYTHON} -c "{ENCODE}" {{in}} {{out}}.jpg {{q}} :: {PYTHON} -c "{DECODE}" {{in}} {{out}} :: 20,80'
)


def picture(channels=3):
    return np.random.default_rng(0).integers(0, 256, (24, 30, channels), dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_program_is_a_codec(channels):
    anchor = find(JPEG)
    assert anchor.scale.defaults == (20, 80)
    assert "Python 3" in anchor.version
    image = picture(channels)
    low, high = (anchor.encode(image, quality) for quality in anchor.scale.defaults)
    assert low[:2] == high[:2] == b"\xff\xd8"
    assert len(low) < len(high)
    assert anchor.decode(high).shape == image.shape


def test_a_program_without_quality_has_one_point():
    anchor = find("ext:cp {in} {out}.png :: cp {in} {out}")
    image = picture()
    assert anchor.scale is None
    assert np.array_equal(anchor.decode(anchor.encode(image, None)), image)


def test_an_absent_program_is_named():
    absent = find("ext:no-such-tool {in} {out} :: cp {in} {out}")
    assert absent == Absent(absent.name, "the program 'no-such-tool' was not found")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("ext:cp {in} {out}", "is not of the form ext:ENCODE"),
        ("ext:cp {in} x :: cp {in} {out}", "has no {out}"),
        ("ext:cp {in} {out} :: cp {out}", "has no {in}"),
        ("ext:cp '{in} {out} :: cp {in} {out}", "No closing quotation"),
        ("ext:cp {in} {out} :: cp {in} {out} :: 10", r"has no {q}"),
        ("ext:cp {in} {out} {q} :: cp {in} {out} :: 10,high", "'10,high' is not a list of qualities"),
        ("ext:cp {in} {out} {q} :: cp {in} {out} :: nan", "not finite"),
    ],
)
def test_malformed_templates(template, message):
    with pytest.raises(AttarError, match=message):
        find(template)


@pytest.mark.parametrize(
    ("encode", "message"),
    [
        ("import sys; sys.exit('no such profile')", "failed with exit code 1: no such profile"),
        ("pass", "the encoder ended well but wrote 0 files"),
        ("import sys; open(sys.argv[2], 'w')", "wrote an empty file"),
    ],
)
def test_a_failing_encoder_is_an_error(encode, message):
    anchor = find(f'ext:{PYTHON} -c "{encode}" {{in}} {{out}} :: cp {{in}} {{out}}')
    with pytest.raises(AttarError, match=message):
        anchor.encode(picture(), None)


def test_a_failing_decoder_is_an_error():
    anchor = find(f"ext:cp {{in}} {{out}} :: {PYTHON} -c pass {{in}} {{out}}")
    with pytest.raises(AttarError, match=r"the decoder ended well but wrote no \{out\}"):
        anchor.decode(b"data")
    anchor = find("ext:cp {in} {out} :: cp {in} {out}")
    with pytest.raises(AttarError, match=r"decoded.png: not an image"):
        anchor.decode(b"data")
