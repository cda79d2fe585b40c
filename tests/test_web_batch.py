"""``/api/convert`` and the Batch screen: the files of ``attar compress``, many at a time, and a sound ZIP of them."""

from __future__ import annotations

import csv
import io
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageCms

import attar
from attar.apps.cli import cli
from attar.codec import images
from attar.measure import anchors

pytest.importorskip("fastapi", reason="attar[web] is not installed")

from fastapi.testclient import TestClient

from web_browser import Page

PHOTOS = Path(attar.__file__).parent / "data" / "photos"


ASKED = "return performance.getEntriesByType('resource').filter(r => r.name.includes('/api/convert')).length"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three crops, two of one name in different folders, a file of ours, and one that is none."""
    path = tmp_path_factory.mktemp("batch")
    (path / "more").mkdir()
    with Image.open(PHOTOS / "kitten.png") as photo:
        photo.crop((100, 40, 164, 88)).save(path / "a.png")
        photo.crop((0, 0, 80, 60)).save(path / "more" / "A.png")
        photo.crop((50, 50, 90, 90)).save(path / "b.jpg", quality=95)
    (path / "c.attar").write_bytes(
        attar.compress(np.arange(784, dtype=np.uint8).reshape(28, 28), model="digits")
    )
    (path / "d.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return path


def converted(client: TestClient, data: bytes, **query: Any) -> tuple[bytes, dict[str, Any]]:
    answer = client.post("/api/convert", params=query, content=data)
    assert answer.status_code == 200, answer.text
    return answer.content, json.loads(answer.headers["attar-row"])


def refused(client: TestClient, data: bytes, **query: Any) -> str:
    answer = client.post("/api/convert", params=query, content=data)
    assert 400 <= answer.status_code < 500
    said: str = answer.json()["error"]
    return said


def printed(*words: str) -> Any:
    done = CliRunner().invoke(cli, list(words))
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.mark.parametrize("effort", [0, 2])
def test_files_and_numbers_are_the_command_lines(
    client: TestClient, folder: Path, tmp_path: Path, photo_bundle: Path, effort: int
) -> None:
    source, target = folder / "a.png", tmp_path / "a.attar"
    made, row = converted(client, source.read_bytes(), codec="attar:toy-photo", effort=effort)
    words = ["compress", str(source), "-m", str(photo_bundle), "--effort", str(effort), "-o", str(target)]
    told = printed(*words, "--json")
    assert target.read_bytes() == made
    assert {key: row[key] for key in ("bytes", "input_bytes", "bpp", "width", "height")} == {
        key: told[key] for key in ("bytes", "input_bytes", "bpp", "width", "height")
    }
    assert row["suffix"] == ".attar"
    assert row["saved_percent"] == pytest.approx(100 * (1 - len(made) / source.stat().st_size))


@pytest.mark.parametrize(
    "target", [{"target_bytes": 2000}, {"target_bpp": 4.5}, {"target_psnr": 30}, {"target_ssim": 0.9}]
)
def test_a_target_is_met_by_the_best_quality(
    client: TestClient, folder: Path, target: dict[str, float]
) -> None:
    source = folder / "a.png"
    made, row = converted(client, source.read_bytes(), codec="jpeg", **target)
    found = anchors.find("jpeg")
    assert not isinstance(found, anchors.Absent)
    assert made == found.encode(images.read(source).pixels, row["quality"])
    (name, value), *_ = target.items()
    kind = name.removeprefix("target_")
    further = row["quality"] + (1 if kind in ("bytes", "bpp") else -1)
    _, beyond = converted(client, source.read_bytes(), codec="jpeg", quality=further)
    if kind in ("bytes", "bpp"):
        assert row[kind] <= value < beyond[kind]
    else:
        assert row[kind] >= value > beyond[kind]


def test_the_numbers_are_those_of_compare(client: TestClient, folder: Path, tmp_path: Path) -> None:
    names = ("psnr", "ssim", "ms_ssim", "bytes", "bpp")
    for codec, suffix in (("webp", ".webp"), ("attar:toy-photo", ".attar")):
        made, row = converted(client, (folder / "a.png").read_bytes(), codec=codec)
        (tmp_path / f"made{suffix}").write_bytes(made)
        told = printed("compare", str(folder / "a.png"), str(tmp_path / f"made{suffix}"), "--json")
        assert [row[name] for name in names] == [told[name] for name in names]


def test_a_file_of_ours_comes_back_as_png(client: TestClient, folder: Path) -> None:
    data = (folder / "c.attar").read_bytes()
    made, row = converted(client, data, codec="jpeg", quality=50)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(made))), attar.decompress(data)[..., 0])
    assert (row["suffix"], row["codec"], row["psnr"], row["input_bytes"]) == (".png", "png", None, len(data))


def test_alpha_and_metadata_are_kept_as_the_command_line_keeps_them(client: TestClient) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 4), np.uint8)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", icc_profile=profile)
    data = buffer.getvalue()
    made, row = converted(client, data, codec="attar:toy-photo")
    assert (row["psnr"], row["ssim"]) == (None, None)  # what is transparent has no picture to compare
    back, _ = converted(client, made, codec="png")
    picture = images.read(back)
    assert picture.alpha is not None
    assert np.array_equal(picture.alpha, pixels[..., 3])
    assert picture.icc == profile
    stripped, _ = converted(client, data, codec="attar:toy-photo", strip=True)
    assert len(made) - len(stripped) > 100
    assert "alpha" in refused(client, data, codec="jpeg")


def test_what_loses_something_is_only_taken_when_it_is_accepted(client: TestClient) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((32, 32), np.uint16)).save(buffer, "PNG")
    said = refused(client, buffer.getvalue(), codec="webp")
    assert "more than 8 bits" in said
    assert "convert=true" in said
    _, row = converted(client, buffer.getvalue(), codec="webp", convert=True)
    assert row["psnr"] == "identical"


def test_requests_that_mean_nothing_are_refused(client: TestClient, folder: Path) -> None:
    data = (folder / "a.png").read_bytes()
    assert "one of quality and the targets" in refused(client, data, codec="jpeg", quality=5, target_bpp=1)
    assert "no codec is called" in refused(client, data, codec="attar:/etc/passwd")
    assert "has no quality setting" in refused(client, data, codec="png", quality=5)
    assert "has no quality setting" in refused(client, data, codec="attar:toy-photo", quality=5)
    assert "at most 5 bytes wanted" in refused(client, data, codec="png", target_bytes=5)
    assert "image: " in refused(client, (folder / "d.png").read_bytes(), codec="jpeg")
    assert "file: " in refused(client, (folder / "c.attar").read_bytes()[:20], codec="jpeg")


def test_jpeg_xl_is_taken(client: TestClient, folder: Path) -> None:
    if isinstance(anchors.find("jxl"), anchors.Absent):
        pytest.skip("imagecodecs is not installed (attar[measure])")
    made, _ = converted(client, (folder / "a.png").read_bytes(), codec="jxl-lossless")
    back, row = converted(client, made, codec="png")
    assert np.array_equal(images.read(back).pixels, images.read(folder / "a.png").pixels)
    assert row["psnr"] == "identical"


def fill(page: Page, *files: Path) -> None:
    """Put files into the batch."""
    page.find("#samples")
    picker = page.run("return document.querySelector('attar-batch input[type=file]')")
    picker.send_keys("\n".join(map(str, files)))
    page.until(lambda: len(rows(page)) >= len(files), "all rows")


def rows(page: Page) -> list[list[str]]:
    script = "return [...document.querySelectorAll('#files tbody tr')].map(r => [...r.cells].map(c => c.innerText))"
    found: list[list[str]] = page.run(script)
    return found


def start(page: Page) -> None:
    button = page.find("#start")
    page.until(button.is_enabled, "it can be started")
    button.click()


def finish(page: Page) -> str:
    going = "return document.querySelector('#cancel').offsetParent !== null"
    page.until(lambda: not page.run(going), "all done", 60)
    said: str = page.find("#summary").text
    return said


def column(page: Page, number: int) -> list[str]:
    return [row[number] for row in rows(page)]


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 390)])
def test_a_batch_with_a_bad_file(
    page: Page, folder: Path, photo_bundle: Path, theme: str, width: int
) -> None:
    page.open("#/batch?codec=attar:toy-photo", theme=theme, width=width)
    files = [
        folder / "a.png",
        folder / "more" / "A.png",
        folder / "b.jpg",
        folder / "c.attar",
        folder / "d.png",
    ]
    fill(page, *files)
    assert column(page, 1) == ["\u25cb waiting"] * 5
    start(page)
    assert finish(page).startswith("4 of 5 done, 1 failed: ")
    codec = attar.load(photo_bundle)
    wanted = [codec.compress(str(file)) for file in files[:3]]
    shown = rows(page)
    assert [row[1] for row in shown[:4]] == ["\u2713 done"] * 4
    assert shown[4][1] == "\u2717 failed: image: not an image, or of an unknown kind"
    assert [row[3] for row in shown[:3]] == [f"{len(data):,}" for data in wanted]
    assert shown[0][4] == f"{100 * (1 - len(wanted[0]) / files[0].stat().st_size):.1f} %"
    page.find("#save-zip").click()
    with zipfile.ZipFile(io.BytesIO(page.downloaded("attar.zip"))) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["a.attar", "A (2).attar", "b.attar", "c.png"]
        assert [archive.read(name) for name in archive.namelist()[:3]] == wanted
        back = np.asarray(Image.open(io.BytesIO(archive.read("c.png"))))
        assert np.array_equal(back, attar.decompress(files[3].read_bytes())[..., 0])
    page.find("#save-csv").click()
    table = list(csv.DictReader(io.StringIO(page.downloaded("attar.csv").decode(), newline="")))
    assert [row["output"] for row in table] == ["a.attar", "A (2).attar", "b.attar", "c.png", ""]
    assert [int(row["bytes"]) for row in table[:3]] == [len(data) for data in wanted]
    assert table[4]["error"].startswith("image: ")
    assert page.run(
        "return document.querySelector('attar-batch').textContent.includes(arguments[0])",
        "attar compress *.png *.jpg -m toy-photo -o out/",
    )
    assert all("422" in entry["message"] for entry in page.driver.get_log("browser"))
    page.check()
    page.find("#retry").click()
    page.until(lambda: page.run(ASKED) == 6, "one file is tried again")
    assert finish(page).startswith("4 of 5 done, 1 failed: ")
    page.driver.get_log("browser")


def test_rows_are_sorted_and_saved_by_keys(page: Page, folder: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    page.open("#/batch?codec=webp&batch-q=30")
    fill(page, folder / "b.jpg", folder / "a.png", folder / "more" / "A.png")
    page.until(page.find("#start").is_enabled, "it can be started")
    page.find("#start").send_keys(Keys.ENTER)
    finish(page)
    heads = page.run("return [...document.querySelectorAll('#files th button')]")
    heads[2].send_keys(Keys.ENTER)  # bytes before
    sizes = [int(cell.replace(",", "")) for cell in column(page, 2)]
    assert sizes == sorted(sizes)
    heads[2].send_keys(Keys.ENTER)
    assert [int(cell.replace(",", "")) for cell in column(page, 2)] == sizes[::-1]
    state = "return [...document.querySelectorAll('#files th[aria-sort]')].map(h => [h.innerText.trim(), h.ariaSort])"
    assert page.run(state) == [["Before", "descending"]]
    heads[0].send_keys(Keys.ENTER)
    assert [name.lower() for name in column(page, 0)] == ["a.png", "a.png", "b.jpg"]
    page.run("document.querySelectorAll('#files tbody tr')[2].querySelector('button').focus()")
    page.press(Keys.ENTER)
    anchor = anchors.find("webp")
    assert not isinstance(anchor, anchors.Absent)
    assert page.downloaded("b.webp") == anchor.encode(images.read(folder / "b.jpg").pixels, 30)


def test_settings_are_in_the_address_and_done_files_are_not_done_again(page: Page, folder: Path) -> None:
    page.open("#/batch?codec=jpeg&batch-by=psnr&batch-value=30")
    fill(page, folder / "a.png", folder / "b.jpg")
    start(page)
    assert finish(page).startswith("2 of 2 done: ")
    assert all(float(cell) >= 30 for cell in column(page, 5))
    assert not page.find("#start").is_enabled()
    fill(page, folder / "a.png")
    assert page.find("#start").text == "Start 1 file"
    page.run(
        "const s = document.querySelector('#codec'); s.value = 'webp'; s.dispatchEvent(new Event('change'))"
    )
    assert page.find("#start").text == "Start 3 files"
    assert "codec=webp" in page.driver.current_url
    assert "batch-by=psnr&batch-value=30" in page.driver.current_url
    start(page)
    assert finish(page).startswith("3 of 3 done: ")


def test_a_batch_is_cancelled_and_goes_on(page: Page, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for number in range(6):
        Image.fromarray(random.integers(0, 256, (400, 400, 3), np.uint8)).save(tmp_path / f"{number}.png")
    page.open("#/batch?codec=avif&batch-q=60")
    fill(page, *sorted(tmp_path.iterdir()))
    start(page)
    page.until(lambda: "running" in " ".join(column(page, 1)), "it runs")
    page.find("#cancel").click()
    finish(page)
    states = column(page, 1)
    assert "\u25d4 running" not in states
    assert "\u25cb waiting" in states
    page.run(
        "const s = document.querySelector('#codec'); s.value = 'jpeg'; s.dispatchEvent(new Event('change'))"
    )
    start(page)
    page.until(lambda: finish(page).startswith("6 of 6 done: "), "it goes on", 60)


def test_names_in_the_archive_are_harmless_and_differ(page: Page) -> None:
    page.open("#/draw")
    names = ["../../etc/passwd", "a/b.png", "C:\\x.png", "x.png", "X.PNG", "x.png", "", ".", "..", "\0"]
    names += ["x (2).png", "\u00fc.png", "tail. "]
    given = page.run("return import('/zip.js').then(z => z.tellApart(arguments[0]))", names)
    assert len({name.lower() for name in given}) == len(names)
    assert not [
        name
        for name in given
        if set(name) & set("/\\:\0") or name.startswith(".") or name.strip(". ") != name
    ]
    files = [{"name": name, "text": name * 7} for name in given]
    script = (
        "return import('/zip.js').then(z => z.zip(arguments[0].map(f => ({name: f.name, data: new Blob([f.text])}))))"
        ".then(b => b.bytes()).then(b => [...b])"
    )
    with zipfile.ZipFile(io.BytesIO(bytes(page.run(script, files)))) as archive:
        assert archive.testzip() is None
        assert [(name, archive.read(name).decode()) for name in archive.namelist()] == [
            (name, name * 7) for name in given
        ]


@pytest.mark.parametrize(
    "settings",
    ["codec=attar:toy-photo&strip=1&effort=1", "codec=webp&batch-by=psnr&batch-value=30&convert=1"],
)
def test_the_python_shown_writes_the_same_files(
    page: Page,
    folder: Path,
    photo_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: str,
) -> None:
    page.open(f"#/batch?{settings}")
    shutil.copy(folder / "a.png", tmp_path)
    fill(page, tmp_path / "a.png")
    start(page)
    finish(page)
    page.find("#save-zip").click()
    with zipfile.ZipFile(io.BytesIO(page.downloaded("attar.zip"))) as archive:
        (name,) = archive.namelist()
        made = archive.read(name)
    code = page.run("return document.querySelector('[aria-label=\"the Python\"]').textContent")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATTAR_MODELS", str(photo_bundle.parent))
    exec(code, {})
    assert (tmp_path / "out" / name).read_bytes() == made
