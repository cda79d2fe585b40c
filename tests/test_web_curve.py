"""``/api/curve`` and the Curve screen: the points of ``attar benchmark``, as they are measured, by mouse and keys."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
import threading
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import attar
from attar.apps.cli import cli
from attar.codec import bundle, images
from attar.measure import anchors, worker
from attar.measure.rows import COLUMNS, Row, read_rows

pytest.importorskip("fastapi", reason="attar[web] is not installed")

from fastapi import FastAPI
from fastapi.testclient import TestClient

from attar.apps.web import curve
from attar.apps.web.app import create_app
from attar.apps.web.limits import Limits
from attar.apps.web.pool import Pool
from attar.apps.web.workshop import Workshop
from web_browser import Page

PHOTOS = Path(attar.__file__).parent / "data" / "photos"
TIMES = {"encode_ms", "decode_ms", "runs", "peak_mib", "command", "image"}
"""Columns that differ from one run to the next."""


@pytest.fixture(scope="module")
def crop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small piece of a photograph."""
    path = tmp_path_factory.mktemp("crop") / "crop.png"
    with Image.open(PHOTOS / "kitten.png") as photo:
        photo.crop((100, 40, 164, 88)).save(path)
    return path


def lines(answer: Any) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


def points(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line["row"] for line in found if line["kind"] == "point"]


def lasting(row: Row) -> dict[str, Any]:
    return {name: getattr(row, name) for name in COLUMNS if name not in TIMES}


def test_rows_and_bd_rates_are_the_benchmarks(client: TestClient, crop: Path, tmp_path: Path) -> None:
    names = ["jpeg", "webp", "attar:toy-photo"]
    found = lines(client.post("/api/curve", params={"codec": names}, content=crop.read_bytes()))
    words = ["benchmark", str(crop), "--codecs", ",".join(names), "--repeats", "1", "--no-pictures", "--json"]
    done = CliRunner().invoke(cli, [*words, "-o", str(tmp_path / "report")])
    assert done.exit_code == 0, done.output
    measured = read_rows(tmp_path / "report" / "rows.csv")
    ours = [Row(**row) for row in points(found)]
    assert {row.key[2:]: lasting(row) for row in ours} == {row.key[2:]: lasting(row) for row in measured}
    assert found[0]["points"] == len(ours) == len(measured)
    report = json.loads(done.stdout)
    bd = {
        (delta["codec"], delta["metric"]): (delta["rate"], delta["refused"])
        for delta in report["bd"]
        if (delta["reference"], delta["method"]) == ("jpeg", "pchip")
    }
    assert bd == {
        (delta["codec"], delta["metric"]): (delta["rate"], delta["refused"])
        for delta in found[-1]["deltas"]
        if delta["reference"] == "jpeg"
    }
    levels = [line["levels"]["ssim"] for line in found if line["kind"] == "point"]
    assert levels == pytest.approx([-10 * np.log10(1 - row.ssim) for row in ours])


def test_what_is_measured_unless_it_is_said(client: TestClient, crop: Path) -> None:
    found = lines(client.post("/api/curve", content=crop.read_bytes()))
    names = {codec["name"] for codec in found[0]["codecs"]} | {one["name"] for one in found[0]["absent"]}
    models = bundle.installed().items()
    fitting = {f"attar:{name}" for name, path in models if bundle.read(path).manifest.size is None}
    assert names == {"jpeg", "webp", "avif", "jxl"} | fitting
    assert "attar:toy-photo" in fitting
    assert "attar:digits" not in fitting
    assert [line["kind"] for line in found] == ["plan", *["point"] * found[0]["points"], "end"]
    planned = curve.survey(Workshop(1 << 20), crop.read_bytes(), ["jpeg", "png", "webp"]).tasks()
    assert [anchor.name for anchor, _ in planned][:5] == ["jpeg", "png", "webp", "jpeg", "webp"]  # in turn


def test_a_codec_that_fails_is_a_failed_row(client: TestClient, crop: Path) -> None:
    names = ["attar:digits", "png"]
    found = lines(client.post("/api/curve", params={"codec": names}, content=crop.read_bytes()))
    failed, good = sorted(points(found), key=lambda row: names.index(str(row["codec"])))
    assert (failed["status"], failed["bytes"]) == ("failed", None)
    assert "model 'digits' takes gray, 28 x 28" in failed["error"]
    assert (good["status"], good["psnr"]) == ("ok", "identical")


@pytest.mark.parametrize(
    ("data", "codec", "status", "says"),
    [
        (b"<svg><script>alert(1)</script></svg>", "jpeg", 415, "no image that is taken here"),
        (b"\x89PNG\r\n\x1a\n cut", "jpeg", 422, "image: "),
        (b"P5\n9999 9999\n255\n", "jpeg", 422, "9999 x 9999 pixels, at most 200000"),
        (b"", "jpeg", 400, "no body"),
        (b"P5\n1 1\n255\n0", "ext:id :: id", 422, "no codec is called"),
        (b"P5\n1 1\n255\n0", "attar:../digits", 422, "no codec is called"),
        (b"P5\n1 1\n255\n0", "x" * 90, 422, "at most 80"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    client: TestClient, data: bytes, codec: str, status: int, says: str
) -> None:
    answer = client.post("/api/curve", params={"codec": codec}, content=data)
    assert answer.status_code == status
    assert says in answer.json()["error"]


@pytest.mark.parametrize("leaves", [0, 1, 3])
def test_a_client_that_leaves_ends_the_work(monkeypatch: pytest.MonkeyPatch, leaves: int) -> None:
    """After ``leaves`` lines the client is gone: no further point is begun, and the place is free again."""
    begun: list[str] = []
    measure = curve.Survey.measure

    def counted(survey: curve.Survey, anchor: anchors.Anchor, quality: float | None) -> Row:
        begun.append(anchor.name)
        return measure(survey, anchor, quality)

    monkeypatch.setattr(curve.Survey, "measure", counted)
    pool = Pool(Limits())
    app = FastAPI()
    app.include_router(curve.router(pool, Workshop(1 << 20)))
    body = (PHOTOS / "mountain.jpg").read_bytes()

    async def visit() -> None:
        gone = asyncio.Event()
        sent = iter([{"type": "http.request", "body": body, "more_body": False}])
        seen = 0
        if not leaves:
            gone.set()

        async def receive() -> dict[str, Any]:
            if (message := next(sent, None)) is not None:
                return message
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            nonlocal seen
            seen += message.get("body", b"").count(b"\n")
            if leaves and seen >= leaves:
                gone.set()

        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "POST",
            "path": "/api/curve",
            "raw_path": b"/api/curve",
            "root_path": "",
            "scheme": "http",
            "query_string": b"codec=jpeg&codec=webp",
            "headers": [(b"host", b"127.0.0.1"), (b"content-length", str(len(body)).encode())],
            "server": ("127.0.0.1", 80),
            "client": ("127.0.0.1", 1),
        }
        try:
            await app(scope, receive, send)
        except Exception:
            assert not leaves  # a refusal that nobody is there to read
        for _ in range(500):
            if not pool.admitted:
                break
            await asyncio.sleep(0.01)

    asyncio.run(visit())
    pool.close()
    assert pool.admitted == 0
    assert pool.held == 0
    assert len(begun) <= leaves + pool.limits.workers


def test_more_curves_than_may_be_at_once_are_told_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()
    monkeypatch.setattr(curve.Survey, "end", lambda *_: {"kind": "end", "waited": go.wait(20)})
    data = b"P5\n8 8\n255\n" + bytes(64)
    answers: list[int] = []

    def ask(client: TestClient) -> None:
        answers.append(client.post("/api/curve?codec=png", content=data).status_code)

    limits = Limits(workers=curve.CURVES + 1)
    with TestClient(create_app(limits), base_url="http://127.0.0.1:8000") as client:
        asking = [
            threading.Thread(target=ask, args=(client,)) for _ in range(curve.CURVES * limits.workers + 2)
        ]
        for one in asking:
            one.start()
        end = time.monotonic() + 15
        while len(answers) < 2 and time.monotonic() < end:
            time.sleep(0.01)
        go.set()
        for one in asking:
            one.join()
        assert sorted(answers) == [200] * (len(asking) - 2) + [429] * 2
        assert client.post("/api/curve?codec=png", content=data).status_code == 200


def measured(page: Page, crop: Path, settings: str = "", **how: Any) -> str:
    """Have the crop measured; the line above the plot, once all points are there."""
    page.open(f"#/curve{settings}", **how)
    page.find("attar-curve button")
    page.run("return document.querySelector('input[type=file]')").send_keys(str(crop))
    return whole(page)


def whole(page: Page) -> str:
    page.until(lambda: page.run("return document.querySelectorAll('#deltas tr').length"), "the BD-rates", 60)
    said: str = page.find("#said").text
    return said


def table(page: Page) -> list[list[str]]:
    page.run("document.querySelector('#table').open = true")
    script = "return [...document.querySelectorAll('#table tbody tr')].map(r => [...r.cells].map(c => c.innerText))"
    found: list[list[str]] = page.run(script)
    return found


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 390)])
def test_the_numbers_are_those_of_the_benchmarks_codecs(
    page: Page, crop: Path, photo_bundle: Path, theme: str, width: int
) -> None:
    said = measured(page, crop, theme=theme, width=width)
    assert re.fullmatch(r"64 \u00d7 48 pixels, (\d+) of \1 points", said), said
    pixels = images.read(crop).pixels
    rows = {(row[0], row[1]): row for row in table(page)}
    for name, codec, quality in (("jpeg", "jpeg", 45), ("attar:toy-photo", f"attar:{photo_bundle}", None)):
        anchor = anchors.find(codec)
        assert not isinstance(anchor, anchors.Absent)
        data = anchor.encode(pixels, quality)
        found = worker.distortions(pixels, anchor.decode(data))
        row = rows[name, "\u2013" if quality is None else str(quality)]
        wanted = [
            f"{len(data):,}",
            f"{8 * len(data) / 3072:.3f}",
            f"{found['psnr']:.2f}",
            f"{found['ssim']:.4f}",
        ]
        assert row[2:6] == wanted
    words = page.run("return document.querySelector('[aria-label=\"the command\"]').textContent")
    assert re.fullmatch(
        r"attar benchmark crop.png --codecs jpeg,webp,avif,jxl,.*attar:toy-photo.* --repeats 1 -o report",
        words,
    )
    page.check()


def test_keys_reach_every_point_and_open_one_in_compare(page: Page, crop: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    measured(page, crop, "?metric=ssim&ref=webp")
    assert page.run("return document.querySelectorAll('.point[tabindex=\"0\"]').length") == 1
    page.run("document.querySelector('.point[tabindex=\"0\"]').focus()")
    focused = "return document.activeElement.dataset.key"
    assert page.run(focused) == "jpeg 5"
    page.press(Keys.ARROW_RIGHT)
    page.press(Keys.ARROW_RIGHT)
    assert page.run(focused) == "jpeg 25"
    page.press(Keys.ARROW_DOWN)
    assert page.run(focused).startswith("webp ")
    page.press(Keys.END)
    assert page.run(focused) == "webp 95"
    page.press(Keys.ARROW_UP, Keys.HOME)
    assert page.run(focused) == "jpeg 5"
    words = page.run("return document.activeElement.getAttribute('aria-label')")
    assert words.startswith("jpeg, quality 5: ")
    assert page.find("#point").text == words
    page.press(Keys.ENTER)
    page.find("attar-compare")
    address = page.driver.current_url
    assert re.search(r"#/compare\?left=webp&left-q=\d+&right=jpeg&right-q=5$", address), address
    size = words.split(": ")[1].split(" bytes")[0]
    page.until(lambda: f"{size} bytes" in page.find("#right").text, "the same bytes in Compare")
    page.driver.back()
    page.find("#deltas")  # at once: what was measured is not measured again
    asked = (
        "return performance.getEntriesByType('resource').filter(r => r.name.includes('/api/curve')).length"
    )
    assert page.run(asked) == 1
    page.check()


def test_the_mouse_opens_a_point_and_codecs_can_be_hidden(page: Page, crop: Path) -> None:
    from selenium.webdriver import ActionChains

    measured(page, crop, "?log=1")
    page.run("document.querySelectorAll('[aria-label=Codecs] input')[1].click()")
    page.until(lambda: not page.run("return document.querySelector('[data-codec=webp]')"), "webp is hidden")
    assert "hide=webp" in page.driver.current_url
    page.find("#log").click()
    page.until(lambda: "log=" not in page.driver.current_url, "the axis is even")
    point = page.find('[data-key="avif 55"]')
    ActionChains(page.driver).move_to_element(point).perform()
    page.until(lambda: page.find("#point").text.startswith("avif, quality 55: "), "the point is told")
    ActionChains(page.driver).click(point).perform()
    page.find("attar-compare")
    assert "right=avif&right-q=55" in page.driver.current_url
    assert "left=jpeg" in page.driver.current_url


def test_files_of_the_curve(page: Page, crop: Path, tmp_path: Path) -> None:
    measured(page, crop)
    page.find("#save-csv").click()
    path = tmp_path / "rows.csv"
    path.write_bytes(page.downloaded("crop-curve.csv"))
    rows = read_rows(path)  # a ledger of attar benchmark
    assert {row.codec for row in rows} >= {"jpeg", "webp", "attar:toy-photo"}
    assert {row.image for row in rows} == {"crop.png"}
    page.find("#save-json").click()
    document = json.loads(page.downloaded("crop-curve.json"))
    assert [row["bytes"] for row in document["rows"]] == [row.bytes for row in rows]
    assert {delta["reference"] for delta in document["bd"]} >= {"jpeg", "webp"}
    page.find("#save-svg").click()
    drawing = ET.fromstring(page.downloaded("crop-psnr.svg"))
    marks = [
        item
        for item in drawing.iter()
        if item.get("fill", "").startswith("rgb") and item.tag.endswith("path")
    ]
    assert len(marks) >= len(rows) - 5
    assert "PSNR (dB)" in "".join(drawing.itertext())


def test_a_curve_can_be_stopped_and_a_refusal_is_told(page: Page, tmp_path: Path) -> None:
    page.open("#/curve?photo=mountain")
    page.until(lambda: page.run("return document.querySelectorAll('.point').length") > 1, "some points")
    page.find("#stop").click()
    page.find("#again")
    done, wanted = re.findall(r"(\d+) of (\d+) points", page.find("#said").text)[0]
    assert 0 < int(done) < int(wanted)
    assert "photo=mountain" in page.driver.current_url
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    page.run("return document.querySelector('input[type=file]')").send_keys(str(tmp_path / "broken.png"))
    page.until(lambda: "not an image" in page.find("attar-curve > .fault").text, "the refusal is told")
    logged = page.driver.get_log("browser")
    assert all("422" in entry["message"] for entry in logged), logged


def test_cells_of_csv_files_are_quoted(page: Page) -> None:
    page.open("#/draw")
    rows = [{"a": 'x,"y"\nz', "b": None, "c": 1.5}, {"a": "", "b": "=1", "c": "\u00e9"}]
    text = page.run("return import('/tables.js').then(t => t.toCsv(arguments[0]).text())", rows)
    read = list(csv.DictReader(io.StringIO(text, newline="")))
    assert read == [{"a": 'x,"y"\nz', "b": "", "c": "1.5"}, {"a": "", "b": "=1", "c": "\u00e9"}]
