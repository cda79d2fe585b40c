"""A real server and a real headless Chromium for the browser tests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

AXE = Path(__file__).parent / "vendor" / "axe-core" / "axe.min.js"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)


def find_chromium() -> str:
    """The browser's program; the test is skipped where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if (found := shutil.which(name)) and shutil.which("chromedriver"):
            return found
    pytest.skip("no Chromium with chromedriver is installed (Debian: chromium, chromium-driver)")


def serve(*options: str, **environment: str) -> Iterator[str]:
    """``attar serve`` in another process; gives its address."""
    words = [sys.executable, "-m", "attar", "serve", "--port", "0", *options]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"} | environment
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=env) as server:
        assert server.stdout is not None
        try:
            line = server.stdout.readline()
            assert line.startswith("Attar is at http://127.0.0.1:"), line
            yield line.split()[3]
        finally:
            server.terminate()


class Page:
    """One browser window, and what went wrong in it."""

    def __init__(self, address: str, folder: Path) -> None:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        options = webdriver.ChromeOptions()
        options.binary_location = find_chromium()
        for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
        self.address = address
        self.downloads = folder / "downloads"
        self.downloads.mkdir()
        self.command("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))

    def command(self, name: str, **arguments: Any) -> Any:
        return self.driver.execute_cdp_cmd(name, arguments)

    def open(self, path: str, *, theme: str = "light", width: int = 1280) -> None:
        features = [
            {"name": "prefers-color-scheme", "value": theme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.command("Emulation.setEmulatedMedia", features=features)
        self.resize(width, 900)
        self.driver.get("about:blank")
        self.driver.get(self.address + path)

    def resize(self, width: int, height: int) -> None:
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def find(self, selector: str) -> Any:
        """The element, as soon as it is there and to be seen."""
        from selenium.webdriver.common.by import By

        def shown() -> Any:
            found = self.driver.find_elements(By.CSS_SELECTOR, selector)
            return found[0] if found and found[0].is_displayed() else None

        return self.until(shown, f"{selector} is shown")

    def until(self, condition: Callable[[], Any], what: str, seconds: float = 15) -> Any:
        from selenium.common.exceptions import StaleElementReferenceException

        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if value := condition():
                    return value
            except StaleElementReferenceException:
                pass
            time.sleep(0.03)
        raise AssertionError(f"not within {seconds} s: {what}")

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def press(self, *keys: str) -> None:
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def downloaded(self, name: str) -> bytes:
        path = self.downloads / name
        self.until(lambda: path.exists() and path.stat().st_size, f"{name} is saved")
        data = path.read_bytes()
        path.unlink()
        return data

    def check(self) -> None:
        """No console message, no request to another host, nothing serious for axe, nothing wider than the page."""
        logged = self.driver.get_log("browser")
        assert not logged, logged
        hosts = set(self.requested())
        assert hosts <= {urlsplit(self.address).netloc}, hosts
        wide = self.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{wide} pixels too wide"
        self.run(AXE.read_text(encoding="utf-8"))
        found = self.driver.execute_async_script("const done = arguments[0]; axe.run().then(done)")
        serious = [
            (fault["id"], [node["html"] for node in fault["nodes"]])
            for fault in found["violations"]
            if fault["impact"] in ("serious", "critical")
        ]
        assert not serious, serious

    def requested(self) -> Iterator[str]:
        """The host of every request since the last look."""
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                url = urlsplit(message["params"]["request"]["url"])
                if url.scheme not in ("blob", "data", "about", "chrome"):
                    yield url.netloc

    def picture(self, path: Path) -> None:
        """The whole page as a PNG."""
        for _ in range(2):  # what is as high as a part of the window grows with it
            self.resize(
                self.run("return innerWidth"), self.run("return document.documentElement.scrollHeight")
            )
        self.driver.save_screenshot(str(path))
