"""Data sets from folders of images: reading and crops."""

from __future__ import annotations

import os
import shutil
import struct
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from attar.errors import DatasetError
from attar.train.datasets import batches, load
from some_images import all_of, encoded, fill, members, noise, save

pytestmark = pytest.mark.usefixtures("cache")


def test_folder_is_read_at_any_depth_whatever_the_order_on_disk(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    for name in ("z.png", "deep/er/a.PNG", "deep/b.tif", "deep/B.bmp", "c d é.webp"):
        save(folder / name, noise(len(name)), **({"lossless": True} if name.endswith("webp") else {}))
    save(folder / ".hidden.png", noise(1))
    save(folder / ".thumbnails" / "x.png", noise(2))
    (folder / "notes.txt").write_text("no image")
    data = load(str(folder))
    assert data.name == "pictures"
    assert data.shape == (12, 16, 3)
    parts = members(data)
    assert set.union(*parts.values()) == {"z.png", "deep/er/a.PNG", "deep/b.tif", "deep/B.bmp", "c d é.webp"}
    assert sum(map(len, parts.values())) == 5
    copy = tmp_path / "copy" / "pictures"
    for name in sorted(set.union(*parts.values()), reverse=True):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / name, copy / name)
    again = load(str(copy))
    assert members(again) == parts
    assert np.array_equal(all_of(again.train), all_of(data.train))
    assert data.description.startswith(f"{folder}: 5 images, 3 train, 1 validation, 1 test (seed 0)")


def read_one(tmp_path: Path, name: str, data: bytes, **options: Any) -> np.ndarray:
    """Read one image through a data set, among others of its size."""
    folder = tmp_path / "one"
    (folder / "test").mkdir(parents=True)
    (folder / "test" / name).write_bytes(data)
    fill(folder, 2)
    data_set = load(str(folder), **options)
    assert data_set.skipped == ()
    return data_set.test.take(np.arange(1))[0]


EXACT = {
    "gray.png": lambda rgb: (encoded("PNG", rgb.convert("L")), rgb.convert("L").convert("RGB")),
    "bilevel.png": lambda rgb: (encoded("PNG", rgb.convert("1")), rgb.convert("1").convert("RGB")),
    "palette.png": lambda rgb: (encoded("PNG", rgb.quantize(16)), rgb.quantize(16).convert("RGB")),
    "deep.png": lambda rgb: (
        encoded("PNG", Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257)),
        rgb.convert("L").convert("RGB"),
    ),
    "cmyk.tif": lambda rgb: (encoded("TIFF", rgb.convert("CMYK")), rgb.convert("CMYK").convert("RGB")),
    "first.gif": lambda rgb: (
        encoded("GIF", rgb.quantize(64), save_all=True, append_images=[Image.new("P", rgb.size)]),
        rgb.quantize(64).convert("RGB"),
    ),
    "lossless.webp": lambda rgb: (encoded("WEBP", rgb, lossless=True), rgb),
}


@pytest.mark.parametrize("name", EXACT)
def test_modes_and_formats_are_converted_exactly(tmp_path: Path, name: str) -> None:
    data, expected = EXACT[name](Image.fromarray(noise(5)))
    assert np.array_equal(read_one(tmp_path, name, data), np.asarray(expected))


@pytest.mark.parametrize("kind", ["JPEG", "AVIF", "WEBP"])
def test_lossy_formats_are_read(tmp_path: Path, kind: str) -> None:
    smooth = np.linspace(0, 255, 12 * 16 * 3).reshape(12, 16, 3).astype(np.uint8)
    got = read_one(tmp_path, f"x.{kind.lower()}", encoded(kind, Image.fromarray(smooth), quality=95))
    assert np.abs(got.astype(int) - smooth).mean() < 8


def test_orientation_is_honoured(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees, clockwise
    stored = noise(3, 16, 12)
    got = read_one(tmp_path, "turned.png", encoded("PNG", Image.fromarray(stored), exif=exif))
    assert np.array_equal(got, np.rot90(stored, -1))


def test_alpha_is_laid_over_white(tmp_path: Path) -> None:
    pixels = np.zeros((12, 16, 4), np.uint8)
    pixels[:, :8] = (10, 20, 30, 255)
    pixels[0, 15] = (100, 0, 200, 128)
    got = read_one(tmp_path, "alpha.png", encoded("PNG", Image.fromarray(pixels)))
    assert np.array_equal(got[5, 3], (10, 20, 30))
    assert np.array_equal(got[5, 12], (255, 255, 255))
    assert np.array_equal(got[0, 15], (177, 127, 227))


def test_gray_folders_stay_gray_and_one_colour_image_makes_rgb(tmp_path: Path) -> None:
    folder = fill(tmp_path / "gray", 70, height=3, width=3, channels=1)
    assert load(str(folder)).shape == (3, 3, 1)
    assert load(str(folder), channels=3).shape == (3, 3, 3)
    save(folder / "zzz.png", noise(0, 3, 3))  # decoded last
    mixed = load(str(folder))
    assert mixed.shape == (3, 3, 3)
    assert len(mixed.train) + len(mixed.validation) + len(mixed.test) == 71
    assert load(str(folder), channels=1).shape == (3, 3, 1)


def test_resizing_is_antialiased(tmp_path: Path) -> None:
    stripes = np.zeros((64, 64, 1), np.uint8)
    stripes[:, ::2] = 255
    for number in range(3):
        stripes[0, 0] = number
        save(tmp_path / "set" / f"{number}.png", stripes)
    small = all_of(load(str(tmp_path / "set"), height=8, width=8).train)
    assert np.abs(small.astype(int) - 128).max() < 25  # without a filter: all 0 or all 255


def test_sizes_that_differ_need_a_choice(tmp_path: Path) -> None:
    folder = fill(tmp_path / "set", 8)
    save(folder / "zz.png", noise(9, 30, 20))
    with pytest.raises(
        DatasetError,
        match=r"different sizes \(000.png is 16 x 12, zz.png is 20 x 30 pixels\): "
        r"pass --height and --width to resize them, or --crop N",
    ):
        load(str(folder))
    assert load(str(folder), height=12, width=16).shape == (12, 16, 3)
    assert load(str(folder), crop=10).shape == (10, 10, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"height": 8}, "height 8 and width None: give both"),
        ({"height": 0, "width": 8}, "height 0: expected 1 to 16384 pixels"),
        ({"crop": -1}, "crop -1: expected 1 to 16384"),
        ({"channels": 4}, r"channels 4: expected 1 \(gray\) or 3 \(RGB\)"),
        ({"seed": -1}, "seed -1: expected 0 to"),
        ({"limit": 0}, "limit 0: at least 1 image"),
        ({"shift": -1}, "shift -1: expected 0 or more"),
        ({"shift": 2, "crop": 8}, "shift 2: .* and 0 with a crop"),
        ({"shrink": 0.0, "crop": 8}, "shrink 0.0: expected above 0 and at most 1"),
        ({"shrink": 1.5, "crop": 8}, "shrink 1.5: expected above 0 and at most 1"),
        ({"shrink": 0.5}, "shrink 0.5: .* and 1 without a crop"),
    ],
)
def test_options_out_of_range(options: dict[str, float], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        load("digits", **options)


# crops


def test_crops_are_shrunk_as_far_as_the_image_goes(tmp_path: Path) -> None:
    # A ramp of 4 levels a pixel is one of 4 to 8 in a crop of scale 1 to 1/2.
    for name, side in {"a": 48, "b": 48, "c": 20, "d": 16, "e": 48}.items():
        ramp = np.broadcast_to(4 * np.arange(side, dtype=np.uint8)[:, None, None], (side, side, 3)).copy()
        ramp[0, 0, 0] = ord(name)  # no two images alike
        save(tmp_path / "set" / f"{name}.png", ramp)
    slopes: dict[str, list[float]] = {}
    data = load(str(tmp_path / "set"), crop=16, shrink=0.5)
    for epoch in range(60):
        for indices, images in batches(data.train, 2, seed=3, epoch=epoch):
            assert images.shape[1:] == (16, 16, 3)
            for index, image in zip(indices, images, strict=True):
                found = np.diff(image[3:13, 8, 1].astype(int)).mean()
                slopes.setdefault(Path(data.train.name(index)).stem, []).append(found)
        pairs = [batches(data.train, 2, seed=3, epoch=epoch, share=(rank, 2)) for rank in (0, 1)]
        shared = [np.concatenate([part for _, part in both]) for both in zip(*pairs, strict=True)]
        whole = [images for _, images in batches(data.train, 2, seed=3, epoch=epoch)]
        assert all(np.array_equal(a, b) for a, b in zip(shared, whole, strict=True))
    most = {"d": 4.0, "c": 5.0}
    for name, found in slopes.items():
        assert min(found) >= 3.9, name
        assert max(found) == pytest.approx(most.get(name, 8.0), abs=0.6), name
    central = data.validation.take(np.zeros(1, int), np.random.default_rng(0))[0]
    assert np.diff(central[3:13, 8, 1].astype(int)).mean() == 4


def test_crops_are_random_in_training_and_central_elsewhere(tmp_path: Path) -> None:
    whole = {}
    for number, (height, width) in enumerate([(20, 31), (16, 16), (40, 17), (9, 50), (33, 33), (21, 22)]):
        whole[f"{number}.png"] = noise(number, height, width)
        save(tmp_path / "set" / f"{number}.png", whole[f"{number}.png"])
    data = load(str(tmp_path / "set"), crop=16, flip=True)
    assert data.shape == (16, 16, 3)
    places = set()
    for epoch in range(60):
        for indices, images in batches(data.train, 2, seed=3, epoch=epoch):
            for index, image in zip(indices, images, strict=True):
                original = whole[data.train.name(index)]
                if original.shape[0] < 16:  # mirrored to 16 rows
                    original = np.pad(original, ((3, 4), (0, 0), (0, 0)), mode="symmetric")
                views = np.lib.stride_tricks.sliding_window_view(original, (16, 16, 3))[:, :, 0]
                hits = [
                    (data.train.name(index), *place, mirror)
                    for mirror in (False, True)
                    for place in np.argwhere(
                        (views == (image[:, ::-1] if mirror else image)).all(axis=(2, 3, 4))
                    )
                ]
                assert len(hits) == 1
                places.update(tuple(map(str, hit)) for hit in hits)
    assert len(places) > 60
    for split in (data.validation, data.test):
        original = whole[split.name(0)]
        top, left = max(0, original.shape[0] - 16) // 2, (original.shape[1] - 16) // 2
        expected = original[top : top + 16, left : left + 16]
        got = split.take(np.zeros(1, int), np.random.default_rng(0))[0]
        assert np.array_equal(got, expected) or original.shape[0] < 16
        assert np.array_equal(got, split.take(np.zeros(1, int))[0])


def test_the_photographs_that_ship_are_credited_and_can_be_cropped() -> None:
    folder = Path(str(resources.files("attar").joinpath("data", "photos")))
    data = load(str(folder), crop=256)
    names = set.union(*members(data).values())
    assert names == {"earthrise.png", "kitten.png", "mountain.jpg"}
    credit = (folder / "README.md").read_text()
    assert all(name in credit for name in names)
    assert "CC0" in credit
    assert sum((folder / name).stat().st_size for name in names) < 400_000
    assert data.shape == (256, 256, 3)


# what cannot be read


def bomb() -> bytes:
    """Say 60,000 x 60,000 pixels in the header of a tiny PNG."""
    data = bytearray(encoded("PNG", Image.new("L", (8, 8))))
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    import zlib

    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def test_broken_images_are_named_skipped_and_counted(tmp_path: Path) -> None:
    folder = fill(tmp_path / "set", 10)
    whole = encoded("JPEG", Image.fromarray(noise(0, 60, 60)))
    (folder / "b" / "c").mkdir(parents=True)
    (folder / "b" / "c" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.gif").write_text("GIF?")
    (folder / "bomb.png").write_bytes(bomb())
    (folder / "item.avif").write_bytes(encoded("AVIF", Image.fromarray(noise(0)))[:300])
    (folder / "gone.png").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "pipe.png")
    data = load(str(folder))
    reasons = dict(line.split(": ", 1) for line in data.skipped)
    assert set(reasons) == {
        "b/c/cut.jpg",
        "empty.png",
        "text.gif",
        "bomb.png",
        "item.avif",
        "gone.png",
        "pipe.png",
    }
    assert "truncated" in reasons["b/c/cut.jpg"]
    assert "60000 x 60000 pixels" in reasons["bomb.png"]
    assert reasons["pipe.png"] == "not a regular file"
    assert reasons["gone.png"] == "No such file or directory"
    assert len(data.train) + len(data.validation) + len(data.test) == 10
    assert data.description.endswith("; 7 skipped")


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    elsewhere = fill(tmp_path / "elsewhere", 4)
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "linked").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(folder)
    assert set.union(*members(load(str(folder))).values()) == {f"linked/{n:03}.png" for n in range(4)}


def test_folders_without_images(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    with pytest.raises(
        DatasetError, match=r"set: no images below it \(it holds no files\); expected .avif .bmp"
    ):
        load(str(folder))
    (folder / "a.txt").write_text("a")
    (folder / "b.txt").write_text("b")
    with pytest.raises(DatasetError, match=r"no images below it \(it holds 2 .txt\)"):
        load(str(folder))
    (folder / "a.png").write_text("a")
    (folder / "b.png").write_text("b")
    with pytest.raises(
        DatasetError, match=r"none of its 2 images can be read; the first one: a.png: not an image"
    ):
        load(str(folder))


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_images(tmp_path: Path, count: int) -> None:
    with pytest.raises(
        DatasetError, match=f"set: {count} different images? for training: at least 3 are needed"
    ):
        load(str(fill(tmp_path / "set", count)))


def test_names_that_lead_nowhere(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"'mnist' does not exist: .* add --tfds true"):
        load("mnist")
    (tmp_path / "x.png").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"x.png' is a file: expected 'digits', a folder"):
        load(str(tmp_path / "x.png"))
    with pytest.raises(DatasetError, match="cannot be opened: File name too long"):
        load("x" * 5000)
