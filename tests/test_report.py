"""The report: true numbers, one page that needs nothing else, and nothing missing in silence."""

from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attar.errors import AttarError, MissingExtraError
from attar.measure.anchors import Absent
from attar.measure.benchmark import plan, run
from attar.measure.curves import METRICS, Curve, bd, mean_curves, read_published
from attar.measure.plots import rd_plot
from attar.measure.report import Measured, write
from attar.measure.rows import IDENTICAL, Row
from attar.measure.summary import machine, summarise

PUBLISHED = Path(__file__).parent / "data" / "published"
RATES = {"a": (0.2, 0.4, 0.8, 1.6, 3.2), "b": (0.1, 0.2, 0.4, 0.8, 1.6)}
LEVELS = (28.0, 30.0, 33.0, 36.0, 40.0)


def made_rows(images=("one.png", "two.png"), codecs=("a", "b")):
    """Codec b needs half the bits of a, and 10 % less still on the first image."""
    rows = []
    for codec in codecs:
        for place, (bpp, psnr) in enumerate(zip(RATES[codec], LEVELS, strict=True)):
            for image in images:
                share = 0.9 if (codec, image) == ("b", images[0]) else 1
                rows.append(
                    Row(
                        image=f"set/{image}",
                        sha256="0" * 16,
                        width=100,
                        height=200,
                        channels=3,
                        codec=codec,
                        version=f"{codec} 1.0",
                        quality=10 * place,
                        bytes=int(bpp * share * 2500),
                        bpp=bpp * share,
                        psnr=psnr,
                        psnr_y=psnr + 1,
                        ssim=1 - 10 ** (-psnr / 20),
                        encode_ms=4.0,
                        decode_ms=2.0,
                        runs=3,
                        peak_mib=50.0,
                        jobs=1,
                    )
                )
    return rows


class Page(HTMLParser):
    """Collects tags, links and text, and fails on tags that are not closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.words, self.open = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in {"src", "href"}]
        if tag not in {"meta", "img", "br", "li", "p", "html"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in {"li", "p", "html"}:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_the_summary_says_what_the_rows_say():
    summary = summarise(Measured(made_rows(), command="attar benchmark"))
    assert summary["reference"] == "a"
    (psnr,) = (d for d in summary["bd"] if d["metric"] == "psnr" and d["method"] == "pchip")
    assert psnr["codec"] == "b"
    assert psnr["rate"] == pytest.approx(100 * (0.95 / 2 - 1))
    assert psnr["overlap"] == 1
    assert {d["metric"] for d in summary["bd"]} == {"psnr", "psnr_y", "ssim"}  # nothing without values
    assert [(w["image"], round(w["rate"])) for w in summary["worst"]] == [
        ("set/two.png", -50),
        ("set/one.png", -55),
    ]
    (a, b) = summary["times"]
    assert (a["codec"], a["quality"], a["psnr"], a["encode_ms"]) == ("a", 20, 33, 4)
    assert a["encode_mpx_s"] == pytest.approx(0.02 / 0.004)
    assert b["bpp"] == pytest.approx(0.38)
    assert [image["image"] for image in summary["images"]] == ["set/one.png", "set/two.png"]
    json.dumps(summary, allow_nan=False)


def test_a_published_vtm_is_the_reference_and_others_can_be():
    published = read_published([PUBLISHED])
    summary = summarise(Measured(made_rows(), published=published))
    assert summary["reference"] == "VTM"
    assert summary["worst_reference"] == "a"
    assert {d["reference"] for d in summary["bd"]} == {"VTM", "a"}
    vtm = next(curve for curve in published if curve.name == "VTM")
    b = next(curve for curve in mean_curves(made_rows()) if curve.name == "b")
    (rate,) = (
        d["rate"]
        for d in summary["bd"]
        if (d["reference"], d["codec"], d["metric"], d["method"]) == ("VTM", "b", "psnr", "akima")
    )
    assert rate == bd(vtm, b, METRICS["psnr"], method="akima").rate
    assert summarise(Measured(made_rows(), published=published, reference="b"))["reference"] == "b"
    with pytest.raises(AttarError, match="the reference 'x' is not among the curves: a, b"):
        summarise(Measured(made_rows(), reference="x"))


def test_codecs_of_one_rate_show_their_saving():
    one = Row(image="set/one.png", codec="fixed", bpp=0.2, psnr=30.0, width=1, height=1, quality=None)
    two = Row(image="set/two.png", codec="fixed", bpp=0.2, psnr=30.0, width=1, height=1, quality=None)
    summary = summarise(Measured([*made_rows(), one, two]))
    (saving,) = (s for s in summary["savings"] if s["metric"] == "psnr")
    assert (saving["codec"], saving["level"], round(saving["percent"])) == ("fixed", 30, -50)
    assert [round(w["rate"]) for w in summary["worst"] if w["codec"] == "fixed"] == [-50, -50]


def test_lossless_codecs_are_listed_apart():
    exact = [
        Row(
            image=f"set/{name}.png",
            codec="png",
            bytes=size,
            bpp=size / 2500,
            psnr=IDENTICAL,
            width=1,
            height=1,
        )
        for name, size in (("one", 5000), ("two", 10000))
    ]
    summary = summarise(Measured([*made_rows(), *exact]))
    assert summary["lossless"] == [{"codec": "png", "images": 2, "bpp": 3, "bytes": 7500}]
    assert [t["psnr"] for t in summary["times"] if t["codec"] == "png"] == [None]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A real run with a broken image, an absent codec, and names that would be markup or formulas."""
    folder = tmp_path_factory.mktemp("report")
    name = "<b>$x$ & 'y'.png"
    pixels = np.random.default_rng(0).integers(0, 256, (17, 25, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((200, 170), Image.Resampling.BICUBIC).save(folder / name)
    (folder / "broken.png").write_bytes(b"<script>")
    made = plan([folder], ["jpeg", "webp-m0", "png", "ext:no-tool {in} {out} :: cp {in} {out}"])
    rows = run(made, folder / "out", repeats=1, command="attar benchmark '<b>'")
    published = read_published([PUBLISHED / "vtm.json", PUBLISHED / "jpeg.json"])
    measured = Measured(rows, made.absent, published, command="attar benchmark '<b>'")
    write(measured, folder / "out", anchors=made.anchors)
    return folder / "out"


def test_the_page_is_whole_and_needs_nothing_else(report):
    text = (report / "report.html").read_text()
    page = Page(text)
    assert page.open == []
    assert "script" not in page.tags
    assert page.tags.count("img") == 6 + 3  # plots; the original and two lossy codecs
    assert all(link.startswith("data:") for link in page.links)
    assert not re.search(r"https?://", re.sub(r"base64,[^\"]+", "", text))


def test_the_page_says_what_is_there_and_what_is_missing(report):
    words = " ".join(Page((report / "report.html").read_text()).words)
    for expected in (
        "<b>$x$ & 'y'.png",
        "the program 'no-tool' was not found",
        "1 measurement has failed",
        "broken.png: not an image",
        "BD-rate against VTM (%)",
        "BD-rate against jpeg (%)",
        "Lossless references",
        "Machine and versions",
        "attar benchmark '<b>'",
        "libjpeg-turbo",
        "published",
    ):
        assert expected in words, expected


def test_the_data_files_agree_with_the_page(report):
    document = json.loads((report / "report.json").read_text())
    with (report / "bd.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == len(document["bd"])
    (row,) = (
        r
        for r in table
        if (r["reference"], r["codec"], r["metric"], r["method"]) == ("VTM", "JPEG", "psnr", "pchip")
    )
    assert float(row["rate"]) == pytest.approx(208.5, abs=0.5)
    with (report / "curves.csv").open() as file:
        points = list(csv.DictReader(file))
    assert [point["quality"] for point in points if point["codec"] == "jpeg"] == [
        str(q) for q in range(5, 100, 10)
    ]
    (again,) = read_published([report / "curves" / "jpeg.json"])
    jpeg = next(curve for curve in document["curves"] if curve["codec"] == "jpeg")
    assert list(again.bpp) == jpeg["bpp"]
    assert list(again.values["psnr"]) == jpeg["psnr"]
    assert (report / "times.csv").read_text().startswith("codec,quality,psnr")
    for kind in ("png", "svg"):
        assert {p.stem for p in report.glob(f"*.{kind}")} == {f"rd-{c.replace('_', '-')}" for c in METRICS}
    assert not [p for p in report.iterdir() if p.name.startswith(".")]


def test_nothing_measured_is_an_error(tmp_path):
    with pytest.raises(AttarError, match="nothing was measured, so there is nothing to report"):
        write(Measured([], [Absent("jxl", "no")]), tmp_path)
    failed = Row(image="x", codec="jpeg", status="failed", error="out of memory")
    with pytest.raises(AttarError, match="the first failure: out of memory"):
        write(Measured([failed]), tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(AttarError, match="file cannot be made: "):
        write(Measured(made_rows()), tmp_path / "file")


def test_plots_are_the_same_each_time_and_of_both_kinds():
    curves = mean_curves(made_rows())
    svg = rd_plot(curves, (), METRICS["psnr"], kind="svg")
    assert svg == rd_plot(curves, (), METRICS["psnr"], kind="svg")
    assert svg.startswith(b"<?xml")
    assert rd_plot(curves, curves, METRICS["ssim"], kind="png").startswith(b"\x89PNG")
    assert rd_plot(curves, (), METRICS["ms_ssim"], kind="svg") is None
    many = [Curve(f"_codec$ {n}$", (0.1 * (n + 1), 1.0 + n), {"psnr": (30.0, 35.0)}) for n in range(25)]
    assert rd_plot(many, many, METRICS["psnr"], kind="svg")


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'attar\[measure\]'"):
        rd_plot(mean_curves(made_rows()), (), METRICS["psnr"], kind="svg")


def test_the_machine_is_described():
    described = machine()
    assert described["cores"] >= 1
    assert described["processor"]
    assert described["libraries"]["numpy"] == np.__version__
