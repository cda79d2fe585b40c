"""How soon Compare shows something after a photograph is dropped: in headless Chromium, against a server of its own.

    python benchmarks/web_compare.py [--photo FILE] [--megapixels 2] [--count 5]

Prints, for each of ``count`` new pictures in turn (the first meets a server that has loaded no network yet), the
seconds from the drop to the first decoded picture, and to both pictures with all of their numbers. Every
picture is a little different, so that nothing is remembered.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import web_browser  # noqa: E402 - it lies beside the tests

SHOWN = (
    "return [...document.querySelectorAll('.sheet img')].filter(i => i.naturalWidth === arguments[0]).length"
)
NUMBERS = """return ['left', 'right'].every(side => {
  const e = document.getElementById(side);
  return !e.className.includes('busy') && [...e.querySelectorAll('dd')].every(d => d.innerText !== '\u2013');
})"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photo", type=Path, default=ROOT / "src/attar/data/photos/mountain.jpg")
    parser.add_argument("--megapixels", type=float, default=2.0)
    parser.add_argument("--count", type=int, default=5)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    with Image.open(given.photo) as photo:
        scale = (given.megapixels * 1e6 / (photo.width * photo.height)) ** 0.5
        sizes = [(round(photo.width * scale) + n, round(photo.height * scale)) for n in range(given.count)]
        for width, height in sizes:
            photo.resize((width, height)).save(folder / f"{width}.jpg", quality=90)
    for address in web_browser.serve():
        page = web_browser.Page(address, folder / "chromium")
        page.open("#/compare")
        page.find("attar-compare button")
        for width, height in sizes:
            first, whole = drop(page, folder / f"{width}.jpg", width)
            print(f"{width} x {height}: first {first:.2f} s, all {whole:.2f} s", flush=True)
        page.driver.quit()


def drop(page: web_browser.Page, photo: Path, width: int) -> tuple[float, float]:
    """Seconds until the first of both pictures is shown, and until all is there."""
    picker = page.run("return document.querySelector('input[type=file]')")
    start = time.monotonic()
    picker.send_keys(str(photo))
    page.until(lambda: page.run(SHOWN, width) > 0, "a picture", 60)
    first = time.monotonic() - start
    page.until(lambda: page.run(SHOWN, width) == 2 and page.run(NUMBERS), "numbers", 60)
    return first, time.monotonic() - start


if __name__ == "__main__":
    main()
