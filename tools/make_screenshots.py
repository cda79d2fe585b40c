"""Take the pictures of the web app's screens in docs/images/web: ``python tools/make_screenshots.py [SCREEN...]``.

That of the runs is taken of a real one, which is trained meanwhile (some minutes).
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
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
    "models": ("#/models", "#runs a", "#sample"),
    "curve": ("#/curve?photo=kitten&log=1", "h1", "#deltas"),
    "batch": (
        "#/batch?codec=webp&batch-by=psnr&batch-value=30",
        "#samples",
        "#start",
        "#files .done:nth-child(3)",
    ),
}
"""Address, what is clicked one after the other, and what is there when all is done."""
COLOURS = 192
TRAINED = (sys.executable, "-m", "attar", "train", "--model", str(ROOT / "models" / "model.json"))
EPOCHS = 12  # of a run, before its picture is taken


def main() -> None:
    """One picture for each screen, theme and width."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    names = sys.argv[1:] or list(SCREENS)
    runs = Path(tempfile.mkdtemp())
    with training(runs / "digits") if "models" in names else contextlib.nullcontext():
        for address in web_browser.serve("--runs", str(runs)):
            page = web_browser.Page(address, Path(tempfile.mkdtemp()))
            for name in names:
                for theme in ("light", "dark"):
                    for width in (1280, 390):
                        take(page, name, theme, width)
            page.driver.quit()


@contextlib.contextmanager
def training(run: Path) -> Iterator[None]:
    """A run of ``attar train`` that has come a little way and goes on."""
    options = (
        "--dataset",
        "digits",
        "--limit",
        "2000",
        "--epochs",
        "30",
        "--learning-rate",
        "3e-3",
        "-o",
        run,
    )
    with subprocess.Popen([*TRAINED, *options, "--warmup", "20", "--verbosity", "0"]) as process:  # noqa: S603
        while process.poll() is None and not (run / "samples" / f"epoch-{EPOCHS}.png").exists():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1)
        yield
        process.send_signal(signal.SIGINT)


def take(page: web_browser.Page, name: str, theme: str, width: int) -> None:
    """The picture of one screen, in few colours, so that the repository stays small."""
    path, *clicked, done = SCREENS[name]
    page.open(path, theme=theme, width=width)
    for selector in clicked:
        button = page.find(selector)
        page.until(button.is_enabled, f"{selector} can be used")
        button.click()
    page.until(lambda: page.run("return document.querySelector(arguments[0])", done), f"{done} is there", 120)
    page.until(lambda: not page.run("return document.querySelector('.busy')"), "all is there")
    page.run("document.activeElement.blur()")
    target = FOLDER / f"{name}-{theme}-{width}.png"
    page.picture(target)
    with Image.open(target) as image:
        image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(target, optimize=True)
    print(target.relative_to(ROOT), target.stat().st_size)


if __name__ == "__main__":
    main()
