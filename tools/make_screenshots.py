"""Take the pictures of the web app's screens in docs/images/web: ``python tools/make_screenshots.py``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import web_browser  # noqa: E402 - it lies beside the tests

FOLDER = ROOT / "docs" / "images" / "web"
SCREENS = {
    "draw": ("#/draw?sample=3", "#generate", "#numbers"),
    "inspect": ("#/inspect", "#sample", "#facts"),
    "compare": (
        "#/compare?photo=kitten&left=jpeg&left-q=8&right=avif&right-q=38",
        "attar-compare",
        "#right dd",
    ),
}
COLOURS = 192


def main() -> None:
    """One picture for each screen, theme and width."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for address in web_browser.serve():
        page = web_browser.Page(address, Path(tempfile.mkdtemp()))
        for name in SCREENS:
            for theme in ("light", "dark"):
                for width in (1280, 390):
                    take(page, name, theme, width)
        page.driver.quit()


def take(page: web_browser.Page, name: str, theme: str, width: int) -> None:
    """The picture of one screen, in few colours, so that the repository stays small."""
    path, start, done = SCREENS[name]
    page.open(path, theme=theme, width=width)
    button = page.find(start)
    page.until(button.is_enabled, f"{start} can be used")
    button.click()
    page.find(done)
    page.until(lambda: not page.run("return document.querySelector('.busy')"), "all is there")
    page.run("document.activeElement.blur()")
    target = FOLDER / f"{name}-{theme}-{width}.png"
    page.picture(target)
    with Image.open(target) as image:
        image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(target, optimize=True)
    print(target.relative_to(ROOT), target.stat().st_size)


if __name__ == "__main__":
    main()
