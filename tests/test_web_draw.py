"""The Draw screen in a real browser: drawn with the mouse, used with the keys, numbers those of the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from attar.apps.cli import cli
from web_browser import Page


def attar(*words: str) -> str:
    done = CliRunner().invoke(cli, list(words))
    assert done.exit_code == 0, done.output
    return done.stdout


def draw_a_seven(page: Page) -> None:
    from selenium.webdriver import ActionChains

    pad = page.find("canvas.pad")
    hand = ActionChains(page.driver, duration=40).move_to_element_with_offset(pad, -90, -100).click_and_hold()
    for x, y in ((60, 0), (60, 2), (60, -2), (-40, 80), (-30, 60), (-20, 50)):
        hand = hand.move_by_offset(x, y)
    hand.release().perform()


def size_shown(page: Page) -> int:
    words: str = page.until(
        lambda: "bytes" in page.find("#bytes").text and page.find("#bytes").text, "a size"
    )
    return int(words.split(maxsplit=1)[0])


def generate(page: Page) -> str:
    page.until(lambda: page.find("#generate").is_enabled(), "Generate is enabled")
    page.find("#generate").click()
    text: str = page.until(lambda: page.find("#results:not(.stale) #numbers").text, "the numbers are shown")
    return text


def expected(numbers: dict[str, Any], size: int) -> str:
    return f"{size} bytes, PSNR {numbers['psnr']:.2f} dB, SSIM {numbers['ssim']:.4f}"


def test_a_drawn_digit_is_what_the_command_line_makes(page: Page, tmp_path: Path) -> None:
    page.open("#/draw?effort=4")
    draw_a_seven(page)
    size = size_shown(page)
    shown = generate(page)
    page.find("#save").click()
    page.find("#save-pixels").click()
    saved, pixels = page.downloaded("digit.attar"), page.downloaded("digit.pgm")
    (tmp_path / "digit.pgm").write_bytes(pixels)
    assert pixels.startswith(b"P5\n28 28\n255\n")
    assert max(pixels[13:]) == 255
    assert sum(value > 127 for value in pixels[13:]) > 40
    seen = page.run(
        "return [...document.querySelector('#seen').getContext('2d').getImageData(0, 0, 28, 28).data]"
        ".filter((_, at) => at % 4 === 0)"
    )
    assert bytes(seen) == pixels[13:]
    name = str(tmp_path / "digit.pgm")
    attar("compress", name, "-m", "digits", "--effort", "4", "--quiet")
    assert (tmp_path / "digit.attar").read_bytes() == saved
    assert len(saved) == size
    numbers = json.loads(attar("compare", name, str(tmp_path / "digit.attar"), "--json"))
    assert shown == expected(numbers, size)
    page.check()


def seen(page: Page) -> str:
    """What the model sees, once its file is there."""
    page.until(lambda: page.find("#save").is_enabled(), "the file is made")
    url: str = page.run("return document.querySelector('#seen').toDataURL()")
    return url


def test_every_step_can_be_undone_and_cleared(page: Page) -> None:
    page.open("#/draw?sample=3")
    page.find("#save")
    first = seen(page)
    draw_a_seven(page)
    second = seen(page)
    assert second != first
    assert "sample" not in page.driver.current_url
    page.find("#clear").click()
    page.until(lambda: page.find("#bytes").text == "\u2013", "nothing is left")
    assert not page.find("#generate").is_enabled()
    undo = page.run("return [...document.querySelectorAll('button')].find(b => b.textContent === 'Undo')")
    undo.click()
    assert seen(page) == second
    undo.click()
    assert seen(page) == first


def test_a_saved_file_is_opened_and_regenerated(page: Page, tmp_path: Path) -> None:
    page.open("#/draw?sample=8")
    size = size_shown(page)
    page.until(lambda: page.find("#save").is_enabled(), "Save is enabled")
    page.find("#save").click()
    saved = tmp_path / "eight.attar"
    saved.write_bytes(page.downloaded("digit.attar"))
    page.open("#/draw")
    page.find("#generate")
    page.run("return document.querySelector('input[type=file]')").send_keys(str(saved))
    page.until(lambda: f"{size} bytes; the original" in page.find("#numbers").text, "it is shown")
    damaged = saved.read_bytes()
    saved.write_bytes(damaged[:-1] + bytes([damaged[-1] ^ 1]))
    page.run("return document.querySelector('input[type=file]')").send_keys(str(saved))
    page.until(lambda: "checksum" in page.find(".fault").text, "the damage is told")
    logged = page.driver.get_log("browser")  # the browser itself logs an answer of 422
    assert [entry["level"] for entry in logged] == ["SEVERE"], logged
    assert "422" in logged[0]["message"]


def test_the_keyboard_is_enough(page: Page) -> None:
    from selenium.webdriver.common.keys import Keys

    page.open("#/draw")
    page.find("#generate")
    page.run("document.querySelector('.brand').focus()")

    def go_to(name: str) -> None:
        passed = []
        for _ in range(40):
            page.press(Keys.TAB)
            passed.append(page.run("const a = document.activeElement; return a.ariaLabel ?? a.textContent"))
            if passed[-1] == name:
                return
        raise AssertionError(f"{name!r} is not reached with Tab, only {passed}")

    go_to("Sample 4")
    page.press(Keys.ENTER)
    page.until(lambda: "Sample 4 taken" in page.run("return announce.textContent"), "it is announced")
    size_shown(page)
    go_to("Generate")
    outline = page.run("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.press(Keys.SPACE)
    page.until(lambda: "PSNR" in page.run("return announce.textContent"), "the result is announced")
    page.check()


def test_another_model_for_such_images_works_too(page: Page, tmp_path: Path) -> None:
    page.open("#/draw?sample=0&model=toy-digits&effort=0")
    shown = generate(page)
    page.find("#save").click()
    header = page.downloaded("digit.attar")
    (tmp_path / "zero.attar").write_bytes(header)
    assert json.loads(attar("info", str(tmp_path / "zero.attar"), "--json"))["bytes"] == int(shown.split()[0])
    assert page.run("return [...document.querySelector('#model').options].map(o => o.value)") == [
        "digits",
        "toy-digits",
    ]


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_both_themes_and_widths_are_sound(page: Page, theme: str, width: int) -> None:
    page.open("#/draw?sample=2", theme=theme, width=width)
    generate(page)
    paper = page.run("return getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(22, 20, 19)") == (theme == "dark")
    page.check()


def test_the_theme_is_chosen_and_kept(page: Page) -> None:
    page.open("#/draw", theme="light")
    page.find("#theme").click()
    page.find("#theme").click()
    paper = "return getComputedStyle(document.body).backgroundColor"
    assert page.run(paper) == "rgb(22, 20, 19)"
    page.open("#/draw", theme="light")
    page.find("#generate")
    assert page.run(paper) == "rgb(22, 20, 19)"
    page.find("#theme").click()
    assert page.run(paper) == "rgb(250, 248, 245)"


def test_the_checks_find_what_is_planted(page: Page) -> None:
    page.open("#/draw")
    page.find("#generate")
    page.run("document.querySelector('#generate').insertAdjacentHTML('afterend', '<button></button>')")
    with pytest.raises(AssertionError, match="button-name"):
        page.check()
    page.run("new Image().src = 'http://127.0.0.1:9/x.png'")
    page.until(lambda: page.driver.get_log("browser"), "the refused request is in the console")
    page.until(lambda: "127.0.0.1:9" in set(page.requested()), "and among the requests")
