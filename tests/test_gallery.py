"""Crops at equal bytes: the search hits the size, and the window is where the detail is."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from attar.measure.anchors import find
from attar.measure.benchmark import plan, run
from attar.measure.gallery import busiest_window, fit, gallery
from attar.measure.rows import Row


def picture(height=120, width=200, channels=3):
    y, x = np.mgrid[0:height, 0:width]
    grain = np.random.default_rng(0).normal(0, 12, (height, width, channels))
    planes = [128 + 80 * np.sin(x / (8 + c)) * np.cos(y / 9) for c in range(channels)]
    return np.clip(np.stack(planes, -1) + grain, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", ["jpeg", "webp-m0", "jp2"])
def test_the_search_comes_near_the_size_and_never_above(name):
    anchor = find(name)
    image = picture()
    ends = (anchor.scale.defaults[0], anchor.scale.defaults[-1])
    rows = [Row(image="", quality=quality, bytes=len(anchor.encode(image, quality))) for quality in ends]
    for share in (0.2, 0.5, 0.8):
        target = int(rows[0].bytes + share * (rows[1].bytes - rows[0].bytes))
        size = len(fit(anchor, image, target, rows))
        assert 0.85 * target < size <= target


def test_a_size_out_of_reach_gives_the_nearest_end():
    anchor, image = find("jpeg"), picture()
    sizes = {quality: len(anchor.encode(image, quality)) for quality in (10, 90)}
    rows = [Row(image="", quality=quality, bytes=size) for quality, size in sizes.items()]
    assert len(fit(anchor, image, 10, rows)) == sizes[10]
    assert len(fit(anchor, image, 10**9, rows)) == sizes[90]


def test_the_window_lies_where_the_detail_is():
    image = np.full((300, 400, 3), 90, np.uint8)
    image[200:260, 220:330] = np.random.default_rng(0).integers(0, 256, (60, 110, 3))
    rows, columns = busiest_window(image, 128, 192)
    assert (rows.stop - rows.start, columns.stop - columns.start) == (128, 192)
    assert rows.start <= 200
    assert rows.stop >= 260
    assert columns.start <= 220
    assert columns.stop >= 330
    assert busiest_window(image[:20, :30], 128, 192) == (slice(0, 20), slice(0, 30))


def test_sheets_show_every_lossy_codec_at_one_size(tmp_path):
    for name in ("a", "b"):
        Image.fromarray(picture(150, 210)).save(tmp_path / f"{name}.png")
    made = plan([tmp_path], ["jpeg", "webp-m0", "png"], {"jpeg": [5, 50, 90], "webp-m0": [5, 50, 90]})
    rows = run(made, tmp_path / "out", repeats=1)
    seen = []
    sheets = gallery(rows, made.anchors, most=1, progress=lambda *a: seen.append(a))
    assert seen == [(1, 1, str(tmp_path / "a.png"))]
    (sheet,) = sheets
    assert [crop.codec for crop in sheet.crops] == ["jpeg", "webp-m0"]
    for crop in sheet.crops:
        assert 0.8 * sheet.target < crop.bytes <= sheet.target
        assert 15 < crop.psnr < 50
        assert Image.open(io.BytesIO(crop.data)).size == (192, 128)
    assert Image.open(io.BytesIO(sheet.original)).format == "WEBP"


def test_a_codec_of_one_rate_sets_the_size(tmp_path, digits_bundle):
    import toy_bundle

    Image.fromarray(np.squeeze(toy_bundle.digit())).save(tmp_path / "digit.png")
    made = plan([tmp_path / "digit.png"], ["jpeg", f"attar:{digits_bundle}", "png"])
    rows = run(made, tmp_path / "out", repeats=1)
    (sheet,) = gallery(rows, made.anchors)
    attar = next(row for row in rows if row.codec.startswith("attar"))
    assert attar.ok
    assert sheet.target == attar.bytes
    assert [crop.codec for crop in sheet.crops] == ["jpeg", f"attar:{digits_bundle}"]
    assert sheet.crops[0].bytes == min(row.bytes for row in rows if row.codec == "jpeg")  # its smallest
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(sheet.original))), np.squeeze(toy_bundle.digit()))


def test_nothing_to_compare_gives_no_sheet(tmp_path):
    Image.fromarray(picture(20, 20)).save(tmp_path / "a.png")
    made = plan([tmp_path / "a.png"], ["jpeg", "png"], {"jpeg": [50]})
    assert gallery(run(made, tmp_path / "out", repeats=1), made.anchors) == []
