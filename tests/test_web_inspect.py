"""The Inspect screen in a real browser: facts those of ``attar info``, damage told, nothing of it shown."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import attar
from attar.apps.cli import cli
from web_browser import Page


def facts(page: Page) -> dict[str, str]:
    page.find("#facts")
    words: list[str] = page.run("return [...document.querySelectorAll('#facts > *')].map(e => e.innerText)")
    return dict(zip(words[::2], words[1::2], strict=True))


def parts(page: Page) -> dict[str, int]:
    rows: list[list[str]] = page.run(
        "return [...document.querySelectorAll('#parts tbody tr')].map(r => [...r.cells].map(c => c.innerText))"
    )
    return {row[0]: int(row[1].replace(",", "")) for row in rows}


def give(page: Page, path: Path) -> None:
    page.run("return document.querySelector('input[type=file]')").send_keys(str(path))


def info(path: Path) -> dict[str, object]:
    done = CliRunner().invoke(cli, ["info", str(path), "--json"])
    row: dict[str, object] = json.loads(done.stdout)
    return row


@pytest.fixture
def photo(photo_bundle: Path, tmp_path: Path) -> Path:
    """A file of the small model for photographs; the busy part of the image is its left upper quarter."""
    pixels = np.full((96, 160, 3), 90, np.uint8)
    pixels[:48, :80] = np.random.default_rng(1).integers(0, 256, (48, 80, 3))
    path = tmp_path / "photo.attar"
    path.write_bytes(attar.load(photo_bundle).compress(pixels))
    return path


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 390)])
def test_a_sample_is_told_byte_by_byte(page: Page, tmp_path: Path, theme: str, width: int) -> None:
    from selenium.webdriver.common.keys import Keys

    page.open("#/inspect", theme=theme, width=width)
    page.find("#sample").send_keys(Keys.ENTER)
    shown = facts(page)
    assert shown["State"].startswith("\u2713 Sound")
    word = page.driver.current_url.split("file=")[1]
    path = tmp_path / "five.attar"
    path.write_bytes(base64.urlsafe_b64decode(word + "=" * (-len(word) % 4)))
    row = info(path)
    assert shown["Size"] == f"{row['bytes']} bytes, {row['bpp']:.3f} bits per pixel"
    assert shown["Model"] == f"digits ({row['model']})"
    assert sum(parts(page).values()) == row["bytes"]
    assert parts(page)["Latents"] == row["chunks"]["latents"]  # type: ignore[index]
    assert "50 latent channels" in page.find("#channels").text
    page.check()


def test_the_address_brings_the_file_back(page: Page) -> None:
    page.open("#/draw?sample=7")
    page.until(lambda: page.find("#generate").is_enabled(), "Generate is enabled")
    page.find("#generate").click()
    page.find("#results a").click()
    shown = facts(page)
    address = page.driver.current_url.removeprefix(page.address)
    page.open(address)
    assert facts(page) == shown
    page.check()


@pytest.mark.parametrize(("theme", "width"), [("dark", 1280), ("light", 390)])
def test_the_bits_of_a_photograph_are_mapped(page: Page, photo: Path, theme: str, width: int) -> None:
    page.open("#/inspect", theme=theme, width=width)
    page.find(".drop")
    give(page, photo)
    shown = facts(page)
    assert shown["Image"] == "160 \u00d7 96 pixels, RGB"
    assert shown["File"] == "photo.attar"
    assert sum(parts(page).values()) == photo.stat().st_size
    lights = page.run(
        "const c = document.querySelector('figure canvas');"
        "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        "const at = (x, y) => d[4 * (Math.floor(y * c.height) * c.width + Math.floor(x * c.width))];"
        "return [at(0.25, 0.25), at(0.75, 0.75)]"
    )
    assert lights[0] > 2 * lights[1]
    picture = page.run(
        "const i = document.querySelector('.frame img'); return [i.naturalWidth, i.naturalHeight]"
    )
    assert picture == [160, 96]
    page.check()


def test_a_dropped_file_is_taken(page: Page, photo: Path) -> None:
    page.open("#/inspect")
    page.find(".drop")
    page.run(
        "const data = new DataTransfer();"
        "data.items.add(new File([Uint8Array.from(arguments[0])], 'dropped.attar'));"
        "document.querySelector('.drop').dispatchEvent(new DragEvent('drop', {dataTransfer: data, bubbles: true}))",
        list(photo.read_bytes()),
    )
    assert facts(page)["File"] == "dropped.attar"


def test_damage_is_told_and_not_shown(page: Page, photo: Path) -> None:
    page.open("#/inspect")
    page.find(".drop")
    data = photo.read_bytes()
    photo.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    give(page, photo)
    assert facts(page)["State"].startswith("\u2717 ")
    assert "damaged" in facts(page)["State"]
    assert not page.run("return document.querySelector('.frame img')")
    page.check()
    photo.write_bytes(b"GIF89a, or so")
    give(page, photo)
    page.until(lambda: "not an .attar file" in page.find(".fault").text, "it is refused")
    assert not page.run("return document.querySelector('#found').checkVisibility()")
    assert "422" in page.driver.get_log("browser")[0]["message"]
