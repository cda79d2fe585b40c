"""What one measurement holds, and what a codec that misbehaves leaves behind."""

from __future__ import annotations

import io
import time

import numpy as np
import pytest
from PIL import Image

from attar.errors import AttarError
from attar.measure import metrics
from attar.measure.anchors import find
from attar.measure.rows import IDENTICAL, Row
from attar.measure.worker import ENOUGH_SECONDS, Task, _peak_mib, _reset_peak, _timed, distortions, measure


def picture(channels=3, height=40, width=50):
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([(3 * x + 2 * y + 40 * c) % 256 for c in range(channels)], -1).astype(np.uint8)


class Stub:
    """A codec whose decoder gives what it is told to."""

    name, version, scale = "stub", "stub 1", None

    def __init__(self, answer):
        self.answer = answer

    def encode(self, image, quality):
        return b"12345"

    def decode(self, data):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def row_of(answer, image=None):
    image = picture() if image is None else image
    (row,) = measure(Task("stub", (Row(image="x.png", codec="stub"),), 2), Stub(answer), image)
    return row


def test_a_row_is_true():
    image = picture(3, 170, 180)
    anchor = find("jpeg")
    blanks = [Row(image="x.png", codec="jpeg", quality=quality) for quality in (20, 90)]
    low, high = measure(Task("jpeg", tuple(blanks), 2), anchor, image)
    for row, quality in ((low, 20), (high, 90)):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
        decoded = np.asarray(Image.open(buffer))
        assert row.ok
        assert row.bytes == len(buffer.getvalue())
        assert row.bpp == 8 * row.bytes / (170 * 180)
        assert row.psnr == metrics.psnr(image, decoded)
        assert row.psnr_summed == metrics.psnr_summed(image, decoded)
        assert row.psnr_y == metrics.psnr(metrics.luma(image), metrics.luma(decoded))
        assert row.ssim == metrics.ssim(image, decoded)
        assert row.ms_ssim == metrics.ms_ssim(image, decoded)
        assert row.ms_ssim_y == metrics.ms_ssim(metrics.luma(image), metrics.luma(decoded))
        assert row.encode_ms > 0
        assert row.decode_ms > 0
        assert row.runs == 2


def test_identical_images_are_called_identical():
    row = row_of(picture())
    assert (row.psnr, row.psnr_y, row.psnr_summed) == (IDENTICAL,) * 3
    assert row.ssim == 1
    assert row.ms_ssim is None  # 40 x 50 is too small for it


def test_gray_and_rgb_meet():
    gray = picture(1)
    assert distortions(gray, np.repeat(gray, 3, axis=2))["psnr"] == IDENTICAL
    rgb = np.repeat(gray, 3, axis=2)
    assert distortions(rgb, gray)["psnr"] == IDENTICAL


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (picture(3, 8, 9), "decoded 9 x 8 pixels, not 50 x 40"),
        (np.zeros((40, 50, 4), np.uint8), "decoded 4 channels, not 3"),
        (AttarError("no such\n profile"), "no such profile"),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
        (ValueError("x" * 999), "ValueError: " + "x" * 285 + "..."),
    ],
)
def test_a_failure_is_a_row(answer, message):
    row = row_of(answer)
    assert (row.status, row.error, row.bytes, row.psnr) == ("failed", message, None, None)


def test_tasks_travel_as_json():
    task = Task("jpeg", tuple(Row(image="a\udce9.png", codec="jpeg", quality=q) for q in (5, None)), 3)
    assert Task.from_json(task.to_json()) == task


def test_runs_are_repeated_unless_they_are_long():
    waits = iter((0.1, 0.02, 0.1))
    _, milliseconds, runs = _timed(lambda: time.sleep(next(waits)), 3)
    assert runs == 3
    assert 20 <= milliseconds < 90
    result, milliseconds, runs = _timed(lambda: time.sleep(ENOUGH_SECONDS) or "done", 3)
    assert (result, runs, milliseconds >= 1e3 * ENOUGH_SECONDS) == ("done", 1, True)


def test_peak_memory_is_that_of_the_last_action():
    _reset_peak()
    before = _peak_mib()
    if before is None:
        pytest.skip("this system does not tell peak memory")
    np.ones(64 << 20, np.uint8).sum()
    assert 60 < _peak_mib() - before < 80
    _reset_peak()
    assert _peak_mib() - before < 16
