from __future__ import annotations

import io
import subprocess
import sys
import warnings
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

import attar
from attar.codec import container
from attar.codec.container import Chunk, Header
from attar.codec.pillow import FORMAT, MIME
from toy_bundle import digit, photo


@pytest.fixture(autouse=True)
def registered(only_toys: None) -> object:
    """Pillow knows the format during a test, and forgets it afterwards."""
    Image.init()
    tables = (Image.OPEN, Image.SAVE, Image.EXTENSION, Image.MIME)
    before = [dict(table) for table in tables]
    names = list(Image.ID)
    attar.register_pillow()
    yield
    for table, old in zip(tables, before, strict=True):
        table.clear()
        table.update(old)
    Image.ID[:] = names


@pytest.fixture
def photos(photo_bundle: Path) -> attar.Codec:
    return attar.load(photo_bundle)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_open_gives_what_the_codec_gives(tmp_path: Path, photos: attar.Codec, channels: int) -> None:
    image = np.dstack([photo(), photo(seed=1)])[..., :channels]
    path = tmp_path / "x.attar"
    path.write_bytes(photos.compress(image))
    with Image.open(path) as opened:
        assert (opened.format, opened.mode, opened.size) == (
            FORMAT,
            ["L", "LA", "RGB", "RGBA"][channels - 1],
            (70, 45),
        )
        assert opened.get_format_mimetype() == MIME
        pixels = np.asarray(opened).reshape(image.shape)
    assert np.array_equal(pixels, photos.decompress(path.read_bytes()))


def test_opening_decodes_nothing_until_pixels_are_needed(
    tmp_path: Path, photos: attar.Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = photos.compress(photo())
    decoded: list[int] = []
    decompress = attar.Codec.decompress
    monkeypatch.setattr(
        attar.Codec, "decompress", lambda self, data: decoded.append(1) or decompress(self, data)
    )
    image = Image.open(io.BytesIO(data))
    assert image.size == (70, 45)
    assert decoded == []
    image.load()
    image.load()
    assert decoded == [1]


def test_save_takes_a_model_and_keeps_or_replaces_metadata(tmp_path: Path, photos: attar.Codec) -> None:
    exif = Image.Exif()
    exif[0x010F] = "A camera"
    buffer = io.BytesIO()
    Image.fromarray(photo()).save(buffer, "PNG", icc_profile=b"profile", exif=exif)
    source = Image.open(buffer)
    for options, icc, camera in (
        ({}, b"profile", True),
        ({"icc_profile": b"another"}, b"another", True),
        ({"icc_profile": None, "exif": b""}, None, False),
        ({"exif": exif, "xmp": b"<xmp/>"}, b"profile", True),
    ):
        path = tmp_path / "x.attar"
        source.save(path, model="toy-photo", **options)
        found = photos.decode(path.read_bytes())
        assert found.icc == icc
        assert (found.exif is not None and b"A camera" in found.exif) == camera
        assert found.xmp == options.get("xmp")
        with Image.open(path) as again:
            assert again.info.get("icc_profile") == icc
            assert (again.getexif().get(0x010F) == "A camera") == camera


def test_saving_with_the_model_that_was_registered(tmp_path: Path) -> None:
    attar.register_pillow("toy-digits")
    Image.fromarray(digit()).save(tmp_path / "d.attar")
    assert (tmp_path / "d.attar").read_bytes() == attar.compress(digit(), model="toy-digits")
    with Image.open(tmp_path / "d.attar") as image:
        assert image.convert("RGB").size == (28, 28)


def test_faults_of_saving_are_os_errors_with_our_words(tmp_path: Path) -> None:
    cases = (
        (Image.fromarray(photo()), {"model": "toy-digits"}, r"RGB, 45 x 70 .* takes gray, 28 x 28"),
        (Image.fromarray(photo()), {"model": "nothing"}, "no model 'nothing'"),
        (Image.fromarray(photo()), {"model": "toy-photo", "quality": 80}, "'toy-photo' has a single rate"),
        (Image.fromarray(photo()).convert("CMYK"), {"model": "toy-photo"}, "colour space CMYK"),
    )
    for image, options, message in cases:
        with pytest.raises(OSError, match=message):
            image.save(tmp_path / "x.attar", **options)
    assert list(tmp_path.iterdir()) == []
    Image.fromarray(photo()).convert("CMYK").save(tmp_path / "x.attar", model="toy-photo", convert=True)


def load(path: Path) -> None:
    with Image.open(path) as image:
        image.load()


def test_damaged_files_are_os_errors_with_our_words(tmp_path: Path, photos: attar.Codec) -> None:
    data = photos.compress(photo())
    cases = {
        "the file ends inside the chunk 0x7f": data[:-5],
        "checksum of the symbols does not match": data[:-1] + bytes([data[-1] ^ 1]),
        "model 00000000 is needed and not installed": data[:7] + bytes(4) + data[11:],
        "width 0": data[:5] + b"\0" + data[6:],
    }
    for message, damaged in cases.items():
        (tmp_path / "x.attar").write_bytes(damaged)
        with pytest.raises(OSError, match=message):
            load(tmp_path / "x.attar")
    with pytest.raises(UnidentifiedImageError):
        Image.open(io.BytesIO(b"no image"))


def test_pillows_bomb_limits_apply(photos: attar.Codec) -> None:
    header = Header(3, 14000, 14000, photos.bundle.short_id)
    bomb = container.pack(header, {Chunk.LATENTS: b"\1" * 2000})
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(bomb))
    header = Header(3, 10000, 10000, photos.bundle.short_id)
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(io.BytesIO(container.pack(header, {Chunk.LATENTS: b"\1" * 2000})))


def test_imageio_reads_and_writes(tmp_path: Path, photos: attar.Codec) -> None:
    path = tmp_path / "x.attar"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        iio.imwrite(path, photo(), plugin="pillow", format=FORMAT, model="toy-photo")
        assert np.array_equal(iio.imread(path, plugin="pillow"), photos.decompress(path.read_bytes()))
        assert iio.improps(path, plugin="pillow").shape == (45, 70, 3)


def test_registering_again_changes_nothing(photos: attar.Codec) -> None:
    attar.register_pillow()
    assert Image.open(io.BytesIO(photos.compress(photo()))).size == (70, 45)


def test_pillow_alone_does_not_know_the_format(tmp_path: Path, photos: attar.Codec) -> None:
    path = tmp_path / "x.attar"
    path.write_bytes(photos.compress(photo()))
    script = "import sys, attar; from PIL import Image; Image.open(sys.argv[1])"
    result = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, check=False)
    assert b"UnidentifiedImageError" in result.stderr
