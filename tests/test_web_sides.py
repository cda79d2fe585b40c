"""The sides of Compare: targets as the command line reaches them, files that exist already, settings as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

import attar
from attar.apps.cli import cli
from attar.codec import images
from attar.measure import anchors

pytest.importorskip("fastapi", reason="attar[web] is not installed")

from fastapi.testclient import TestClient

from attar.apps.web.app import create_app
from attar.apps.web.limits import Limits
from test_web_compare import numbers
from web_browser import Page

PHOTOS = Path(attar.__file__).parent / "data" / "photos"


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(create_app(Limits(max_pixels=200_000)), base_url="http://127.0.0.1:8000") as client:
        yield client


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, photo_bundle: Path) -> Path:
    """An original and files of it, of every kind that a side takes."""
    path = tmp_path_factory.mktemp("sides")
    with Image.open(PHOTOS / "kitten.png") as photo:
        piece = photo.crop((100, 40, 196, 112))
        piece.save(path / "original.png")
        piece.save(path / "it.tif")
        piece.resize((90, 70)).save(path / "small.png")
    pixels = images.read(path / "original.png").pixels
    for name in ("jpeg", "webp", "avif", "jxl", "png"):
        if not isinstance(found := anchors.find(name), anchors.Absent):
            (path / f"it.{name}").write_bytes(found.encode(pixels, None if name == "png" else 40))
    (path / "it.attar").write_bytes(attar.load(photo_bundle).compress(pixels))
    return path


def printed(*words: str) -> Any:
    done = CliRunner().invoke(cli, list(words))
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def both(folder: Path, name: str) -> dict[str, bytes]:
    return {"a": (folder / "original.png").read_bytes(), "b": (folder / name).read_bytes()}


@pytest.mark.parametrize("name", ["it.jpeg", "it.webp", "it.avif", "it.png"])
def test_an_existing_files_numbers_are_those_of_compare(client: TestClient, folder: Path, name: str) -> None:
    row = client.post("/api/decode", files=both(folder, name)).json()
    told = printed("compare", str(folder / "original.png"), str(folder / name), "--json")
    same = set(told) - {"a", "b"}
    assert {key: row[key] for key in same} == {key: told[key] for key in same}
    assert (row["codec"], row["encode_ms"], row["picture"]) == ("file", None, None)
    assert row["original_bytes"] == (folder / "original.png").stat().st_size


def test_jpeg_xl_is_seen_as_libjxl_decodes_it(client: TestClient, folder: Path) -> None:
    codec = anchors.find("jxl")
    if isinstance(codec, anchors.Absent):
        pytest.skip(codec.reason)
    row = client.post("/api/decode", files=both(folder, "it.jxl")).json()
    from attar.measure import worker

    pixels = images.read(folder / "original.png").pixels
    assert row["psnr"] == worker.distortions(pixels, codec.decode((folder / "it.jxl").read_bytes()))["psnr"]


def test_files_that_cannot_be_compared_are_refused(client: TestClient, folder: Path) -> None:
    answer = client.post("/api/decode", files=both(folder, "small.png"))
    assert answer.status_code == 422
    assert "a has 96 x 72 pixels, b 90 x 70" in answer.json()["error"]
    junk = {"a": both(folder, "it.png")["a"], "b": b"<svg><script/></svg>"}
    assert client.post("/api/decode", files=junk).status_code == 415
    junk["b"] = b"\xff\x0a\xff\xff\xff\xff\xff\xff\xff\xff"  # a JPEG XL image of 2^30 pixels a side
    answer = client.post("/api/decode", files=junk)
    assert answer.status_code == 422
    assert answer.json()["error"].startswith("b: ")


@pytest.mark.parametrize(
    ("target", "column"),
    [("bytes=2000", "bytes"), ("bpp=2", "bpp"), ("psnr=30", "psnr"), ("ssim=0.9", "ssim")],
)
def test_the_target_of_a_trial_is_met(client: TestClient, folder: Path, target: str, column: str) -> None:
    kind, value = target.split("=")
    data = (folder / "original.png").read_bytes()
    row = client.post(f"/api/encode?codec=webp&target_{kind}={value}", content=data).json()
    beyond = row["quality"] + (1 if kind in ("bytes", "bpp") else -1)
    other = client.post(f"/api/encode?codec=webp&quality={beyond}", content=data).json()
    limits = [row[column], other[column]] if kind in ("bytes", "bpp") else [other[column], row[column]]
    assert limits[0] <= float(value) <= limits[1]
    one = client.post("/api/encode?codec=png&target_bpp=0.1", content=data)
    assert "at its only rate" in one.json()["error"]


def test_a_target_on_each_side(page: Page, folder: Path) -> None:
    page.open("#/compare?left=jpeg&left-by=bytes&left-value=3000&right=webp&right-by=psnr&right-value=32")
    page.find("attar-compare button")
    page.run("return document.querySelector('input[type=file]')").send_keys(str(folder / "original.png"))
    left, right = numbers(page, "left"), numbers(page, "right")
    assert 2500 < int(left["Size"].split()[0].replace(",", "")) <= 3000
    assert 32 <= float(right["PSNR"].split()[0]) < 33
    assert right["Quality"].endswith(", found for the target")
    quality = right["Quality"].split(",")[0]
    recipe = page.run("return document.querySelector('attar-compare').textContent")
    assert f"webp={quality}" in recipe
    assert f"codec.encode(image, {quality})  # the quality found for the target" in recipe
    page.run(
        "const s = document.querySelector('#right-by'); s.value = 'bpp'; s.dispatchEvent(new Event('change'));"
        "const v = document.querySelector('#right-value'); v.value = '1.5'; v.dispatchEvent(new Event('change'))"
    )
    page.until(lambda: 1.3 < float(numbers(page, "right")["Rate"].split()[0]) <= 1.5, "the new target is met")
    assert "right-by=bpp&right-value=1.5" in page.driver.current_url
    page.run(
        "const v = document.querySelector('#right-value'); v.value = '0.001'; v.dispatchEvent(new Event('change'))"
    )
    page.until(lambda: "at most 0.001" in page.find("#right .fault").text, "it is refused")
    page.driver.get_log("browser")


@pytest.mark.parametrize(("theme", "width"), [("light", 390), ("dark", 1280)])
def test_files_are_compared_as_they_are(page: Page, folder: Path, theme: str, width: int) -> None:
    page.open("#/compare", theme=theme, width=width)
    page.find("attar-compare button")
    names = [str(folder / name) for name in ("original.png", "it.jpeg", "it.attar")]
    page.run("return document.querySelector('input[type=file]')").send_keys("\n".join(names))
    told = printed("compare", names[0], names[1], "--json")
    shown = numbers(page, "left")
    assert shown["Size"] == f"{told['bytes']:,} bytes"
    assert (shown["PSNR"], shown["SSIM"]) == (f"{told['psnr']:.2f} dB", f"{told['ssim']:.4f}")
    assert shown["Time"].endswith(" ms out")
    assert numbers(page, "right")["Size"] == f"{(folder / 'it.attar').stat().st_size:,} bytes"
    assert "attar compare original.png it.jpeg" in page.run(
        "return document.querySelector('attar-compare').textContent"
    )
    page.check()
    page.run("return document.querySelector('#right input[type=file]')").send_keys(str(folder / "it.jxl"))
    size = f"{(folder / 'it.jxl').stat().st_size:,} bytes"
    page.until(lambda: numbers(page, "right")["Size"] == size, "another file on the right")
    for screen in ("curve", "compare"):  # the original goes along, the files do not
        page.run(
            f"location.hash = '#/{screen}' + (arguments[0] ? '?left=png&right=png' : '')", screen == "compare"
        )
        page.find(f"attar-{screen}")
        page.until(
            lambda: page.run("return document.querySelector('.point, #left dd') !== null"), "the original"
        )
    assert numbers(page, "right")["PSNR"] == "identical"


def test_an_original_that_the_browser_does_not_know(page: Page, folder: Path) -> None:
    page.open("#/compare?left=png&right=jpeg&right-q=20&errors=1")
    page.find("attar-compare button")
    page.run("return document.querySelector('input[type=file]')").send_keys(str(folder / "it.tif"))
    assert numbers(page, "left")["PSNR"] == "identical"
    numbers(page, "right")
    lights = page.run(
        "return [...document.querySelectorAll('.sheet canvas')].map(c => "
        "c.getContext('2d').getImageData(0, 0, c.width, c.height).data.filter((v, i) => i % 4 === 0 && v > 0).length)"
    )
    assert lights[0] == 0
    assert lights[1] > 1000


def test_settings_are_copied_and_pasted_as_json(page: Page, folder: Path) -> None:
    page.open("#/compare?left=jpeg&left-q=30&right=webp&right-by=ssim&right-value=0.9&mode=beside")
    page.find("attar-compare button")
    page.run("return document.querySelector('input[type=file]')").send_keys(str(folder / "original.png"))
    first = numbers(page, "left"), numbers(page, "right")
    page.run("document.querySelector('#settings').open = true")
    kept = page.find("#json").get_property("value")
    assert json.loads(kept) == {
        "left": {"codec": "jpeg", "quality": 30},
        "right": {"codec": "webp", "target": {"ssim": 0.9}},
        "mode": "beside",
        "errors": False,
    }
    apply(
        page,
        '{"left": {"codec": "png"}, "right": {"codec": "jpeg", "quality": 90}, "mode": "split", "errors": true}',
    )
    page.until(lambda: numbers(page, "left")["PSNR"] == "identical", "the pasted settings are used")
    assert {"left=png", "right=jpeg", "right-q=90", "errors=1"} <= set(
        re.split("[?&]", page.driver.current_url)
    )
    assert page.find("#errors").is_selected()
    apply(page, kept)
    page.until(lambda: numbers(page, "left")["Size"] == first[0]["Size"], "the first settings are back")
    assert numbers(page, "right")["SSIM"] == first[1]["SSIM"]
    page.check()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "JSON"),
        ('{"codec": "jpeg"}', 'nothing is called "codec"; known are left, right, mode, errors'),
        ('{"left": {"codec": "gif"}}', 'left.codec: no codec is called "gif"; known are'),
        ('{"left": {"codec": "jpeg", "qality": 5}}', 'left: nothing is called "qality"'),
        ('{"right": {"codec": "jpeg", "quality": 500}}', "right.quality: expected a number from 1 to 100"),
        (
            '{"right": {"codec": "jpeg", "target": {"vmaf": 5}}}',
            "right.target: expected one of bytes, bpp, psnr, ssim",
        ),
        ('{"right": {"codec": "png", "quality": 5}}', "right: png takes neither a quality nor a target"),
        ('{"mode": "sideways"}', "mode: expected split or beside"),
    ],
)
def test_settings_that_mean_nothing_are_refused(page: Page, text: str, says: str) -> None:
    if "#/compare" not in page.driver.current_url or not page.run(
        "return document.querySelector('#left dd')"
    ):
        page.open("#/compare?photo=kitten&left=jpeg&right=png")
        numbers(page, "right")
        page.run("document.querySelector('#settings').open = true")
    apply(page, text)
    assert says in page.find("#settings .fault").text
    page.driver.get_log("browser")


def apply(page: Page, text: str) -> None:
    page.run("document.querySelector('#json').value = arguments[0]", text)
    page.find("#apply").click()


def test_a_target_out_of_reach_is_told_in_the_command_lines_words(
    page: Page, folder: Path, tmp_path: Path, photo_bundle: Path
) -> None:
    """A bundle of a single rate: the target is met or refused as by `attar compress`."""
    data = (folder / "original.png").read_bytes()
    (tmp_path / "x.png").write_bytes(data)
    done = CliRunner().invoke(
        cli, ["compress", str(tmp_path / "x.png"), "-m", str(photo_bundle), "--target-psnr", "90"]
    )
    assert done.exit_code == 3
    page.open("#/draw")
    said = page.run(
        "return fetch('/api/encode?codec=attar:toy-photo&target_psnr=90',"
        "{method: 'POST', body: new Uint8Array(arguments[0])}).then(r => r.json()).then(r => r.error)",
        list(data),
    )
    assert said in done.output
    page.driver.get_log("browser")


def test_a_file_dropped_on_a_side_is_that_sides_alone(page: Page, folder: Path) -> None:
    page.open("#/compare?left=jpeg&left-q=50&right=jpeg&right-q=50")
    page.find("attar-compare button")
    page.run("return document.querySelector('input[type=file]')").send_keys(str(folder / "original.png"))
    before = numbers(page, "left")
    page.run(
        "const t = new DataTransfer(); t.items.add(new File([new Uint8Array(arguments[0])], 'it.webp'));"
        "document.querySelector('#right dl').dispatchEvent("
        "new DragEvent('drop', {dataTransfer: t, bubbles: true, cancelable: true}))",
        list((folder / "it.webp").read_bytes()),
    )
    size = f"{(folder / 'it.webp').stat().st_size:,} bytes"
    page.until(lambda: numbers(page, "right")["Size"] == size, "the file on the right")
    after = numbers(page, "left")
    assert {**after, "Time": ""} == {**before, "Time": ""}
    assert "right=file" in page.driver.current_url
