"""Mean curves, BD-rates that reproduce published ones, their laws, and curves that cannot be compared."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attar.errors import AttarError, MissingExtraError
from attar.measure.curves import METHODS, METRICS, Curve, bd, mean_curve, mean_curves, read_published, saving
from attar.measure.rows import IDENTICAL, Row

PUBLISHED = Path(__file__).parent / "data" / "published"
PSNR, MS_SSIM = METRICS["psnr"], METRICS["ms_ssim"]


@pytest.fixture(scope="module")
def published():
    return {curve.name: curve for curve in read_published([PUBLISHED])}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("name", "percent"),
    [
        ("JPEG", 208.5),
        ("WebP", 78.7),
        ("BPG 8b 444 x265 ycbcr", 22.0),
        ("AV1", 16.2),
        ("bmshj2018-hyperprior", 30.5),
        ("mbt2018-mean", 21.3),
        ("cheng2020-anchor", 3.7),
    ],
)
def test_bd_rates_of_published_curves_against_vtm(published, name, percent, method):
    assert bd(published["VTM"], published[name], PSNR, method=method).rate == pytest.approx(percent, abs=0.5)


def test_published_curves_lose_nothing(published):
    document = json.loads((PUBLISHED / "jpeg.json").read_text())["results"]
    jpeg = published["JPEG"]
    assert jpeg.points(PSNR) == list(zip(document["bpp"], document["psnr-rgb"], strict=True))
    assert jpeg.points(MS_SSIM)[0][1] == pytest.approx(-10 * math.log10(1 - document["ms-ssim-rgb"][0]))
    assert jpeg.to_published()["results"] == {
        key: document[key] for key in ("bpp", "psnr-rgb", "ms-ssim-rgb")
    }


def curve(name="a", rates=(0.1, 0.2, 0.4, 0.8, 1.6), levels=(28, 30, 32.5, 35, 38)):
    return Curve(name, tuple(rates), {"psnr": tuple(map(float, levels))})


@given(st.floats(0.2, 5))
def test_law_scaling_every_rate_is_the_bd_rate(factor):
    test = curve("b", [rate * factor for rate in curve().bpp])
    for method in METHODS:
        delta = bd(curve(), test, PSNR, method=method)
        assert delta.rate == pytest.approx(100 * (factor - 1), abs=1e-6)
        assert delta.overlap == 1
        assert delta.span == (28, 38)
        back = bd(test, curve(), PSNR, method=method).rate
        assert (1 + back / 100) * (1 + delta.rate / 100) == pytest.approx(1)


@given(st.floats(-1.5, 1.5))
def test_law_shifting_every_level_is_the_bd_psnr(shift):
    test = curve("b", levels=[level + shift for level in (28, 30, 32.5, 35, 38)])
    delta = bd(curve(), test, PSNR)
    assert delta.gain == pytest.approx(shift, abs=1e-9)
    assert delta.rate * shift <= 0


def test_order_and_dominated_points_do_not_matter():
    shuffled = curve("b", (0.8, 0.1, 1.6, 0.4, 0.2), (35, 28, 38, 32.5, 30))
    assert bd(curve(), shuffled, PSNR).rate == pytest.approx(0)
    wasteful = curve("b", (0.1, 0.2, 0.3, 0.4, 0.8, 1.6), (28, 30, 29.9, 32.5, 35, 38))
    assert bd(curve(), wasteful, PSNR).rate == pytest.approx(0)


@pytest.mark.parametrize(
    ("test", "reason"),
    [
        (
            curve("high", levels=(40, 42, 44, 46, 48)),
            "share 0%.*28.0 to 38.0 dB and 40.0 to 48.0 dB.*50% are",
        ),
        (curve("edge", levels=(36, 38, 40, 42, 44)), "the curves share 25% of their quality"),
        (curve("short", (0.1, 0.2, 0.3), (28, 30, 31)), "short has 3 points; a BD-rate needs 4"),
        (curve("one", (0.1,), (28,)), "one has 1 point; a BD-rate needs 4"),
        (Curve("none", (), {}), "none has 0 points"),
        (curve("flat", levels=(30, 30, 30, 30, 30)), "flat has 1 point"),
    ],
)
def test_curves_that_cannot_be_compared_are_refused(test, reason):
    for a, b in ((curve("a"), test), (test, curve("a"))):
        delta = bd(a, b, PSNR)
        assert (delta.rate, delta.gain) == (None, None)
        if a.name == "a":
            import re

            assert re.search(reason, delta.refused)
    assert bd(curve(), curve("edge", levels=(36, 38, 40, 42, 44)), PSNR, min_overlap=0.2).rate is not None


def test_saving_of_single_points():
    one = curve("one", (0.2, 5), (30, 60))
    assert saving(curve(), one, PSNR) == [(30, pytest.approx(0))]
    half = curve("half", (math.sqrt(0.2 * 0.4) / 2,), (31.25,))
    assert saving(curve(), half, PSNR) == [(31.25, pytest.approx(-50))]
    assert saving(one, curve(), PSNR)[0][0] == 30
    assert saving(curve("x", (1,), (30,)), one, PSNR) == []


def row(image, quality, bpp, psnr, codec="c", **more):
    return Row(image=image, codec=codec, version="c 1", quality=quality, bpp=bpp, psnr=psnr, ssim=0.9, **more)


def test_the_mean_curve_is_the_mean_of_each_quality():
    rows = [
        row("a", 50, 1.0, 30.0),
        row("b", 50, 3.0, 40.0),
        row("a", 10, 0.5, 20.0),
        row("b", 10, 0.7, 24.0),
    ]
    made = mean_curve("c", rows)
    assert made.points(PSNR) == [(0.6, 22), (2, 35)]
    assert made.qualities == (10, 50)
    assert made.points(METRICS["ssim"]) == [(0.6, pytest.approx(10)), (2, pytest.approx(10))]
    assert made.points(MS_SSIM) == []
    assert (made.source, made.notes) == ("c 1", ())


def test_means_over_other_images_are_left_out():
    failed = Row(image="b", codec="c", quality=50, status="failed", error="no")
    rows = [row("a", 50, 1.0, 30.0), failed, row("a", 10, 0.5, IDENTICAL), row("b", 10, 0.5, 24.0)]
    made = mean_curve("c", rows)
    assert made.bpp == (0.5,)
    assert made.points(PSNR) == []  # identical images have no PSNR, so this point has none
    assert len(made.points(METRICS["ssim"])) == 1
    assert made.notes == ("quality 50: left out, measured on 1 of 2 images",)
    curves = mean_curves([*rows, row("a", None, 9.0, 50.0, codec="d"), Row(image="x", status="failed")])
    assert [made.name for made in curves] == ["c", "d"]


def test_similarity_of_one_has_no_decibels():
    made = Curve("c", (1.0, 2.0), {"ms_ssim": (0.99, 1.0)})
    assert made.points(MS_SSIM) == [(1, pytest.approx(20))]


def test_curves_of_one_name_are_told_apart_by_file(tmp_path):
    for stem in ("cpu", "cuda"):
        (tmp_path / f"{stem}.json").write_text('{"name": "m", "results": {"bpp": [1], "psnr-rgb": [30]}}')
    (tmp_path / "notes.txt").write_text("not read")
    assert [made.name for made in read_published([tmp_path])] == ["cpu", "cuda"]
    decibels = tmp_path / "db.json"
    decibels.write_text('{"results": {"bpp": [1, 2], "ms-ssim-db-rgb": [10, 20]}}')
    (made,) = read_published([decibels])
    assert made.name == "db"
    assert made.values["ms_ssim"] == pytest.approx((0.9, 0.99))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no json", "not JSON"),
        ("[]", "expected an object with 'name' and 'results'"),
        ('{"results": {"bpp": [1, NaN], "psnr-rgb": [1, 2]}}', "found nan; expected a finite number"),
        (
            '{"results": {"bpp": "fast", "psnr-rgb": [1]}}',
            'results.bpp: expected a list of numbers, found "fast"',
        ),
        ('{"results": {"bpp": [true], "psnr-rgb": [1]}}', "results.bpp: expected a list of numbers"),
        ('{"results": {"bpp": [], "psnr-rgb": []}}', "expected rates above 0"),
        ('{"results": {"bpp": [0, 1], "psnr-rgb": [1, 2]}}', "expected rates above 0"),
        ('{"results": {"bpp": [1, 2], "psnr-rgb": [30]}}', "psnr-rgb has 1 values, but results.bpp has 2"),
        ('{"results": {"bpp": [1], "vmaf": [90]}}', "results holds none of psnr-rgb"),
        ('{"results": {"bpp": [1], "ms-ssim-rgb": [15]}}', r"MS-SSIM lies outside \[0, 1\]"),
    ],
)
def test_files_that_are_no_curves(tmp_path, text, message):
    file = tmp_path / "curve.json"
    file.write_text(text)
    with pytest.raises(AttarError, match=f"curve.json: .*{message}"):
        read_published([file])
    with pytest.raises(AttarError, match=r"gone\.json"):
        read_published([tmp_path / "gone.json"])


def test_without_the_library_the_extra_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "bjontegaard", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'attar\[measure\]'"):
        bd(curve(), curve("b"), PSNR)


def test_a_planted_fault_is_seen(published):
    """The check against published figures notices a metric that is 0.2 dB off."""
    jpeg = published["JPEG"]
    worse = Curve("JPEG", jpeg.bpp, {"psnr": tuple(float(v) - 0.2 for v in jpeg.values["psnr"])})
    assert abs(bd(published["VTM"], worse, PSNR).rate - 208.5) > 5
    assert np.isfinite(bd(published["VTM"], jpeg, MS_SSIM).rate)
