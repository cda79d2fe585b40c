"""What every test runs under."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from fastapi.testclient import TestClient

    from web_browser import Page

# Test modules that import keras before attar.train would otherwise ask Keras for its own default, TensorFlow.
os.environ.setdefault("KERAS_BACKEND", "torch")
# A shell's background jobs ignore Ctrl-C, and would hand that on to every program that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def tensorflow_as_installed() -> Iterator[None]:
    """A command that a test runs in this process hides TensorFlow from Keras for good: bring it back."""
    yield
    if sys.modules.get("tensorflow", sys) is None:
        del sys.modules["tensorflow"]


@pytest.fixture(scope="session")
def digits_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small real bundle for 28 x 28 gray images."""
    import toy_bundle

    path = tmp_path_factory.mktemp("bundles") / "toy-digits.attarmodel"
    toy_bundle.write_digits(path)
    return path


@pytest.fixture(scope="session")
def photo_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small real bundle for RGB and gray images of any size."""
    import toy_bundle

    path = tmp_path_factory.mktemp("bundles") / "toy-photo.attarmodel"
    toy_bundle.write_photo(path)
    return path


@pytest.fixture
def only_toys(digits_bundle: Path, photo_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two small bundles, and nothing else, are installed."""
    from attar.codec import bundle

    monkeypatch.setattr(bundle, "folders", lambda: [digits_bundle.parent, photo_bundle.parent])


@pytest.fixture
def quick_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """No drawings in this process (test_pictures has them); the runs in other processes draw."""

    from attar.train import journal

    def empty(*words: Any) -> None:
        next(word for word in words if isinstance(word, Path)).write_bytes(b"")

    for name in ("drawing", "curves", "regenerated"):
        monkeypatch.setattr(journal.pictures, name, empty)


@pytest.fixture(scope="session")
def digits_network() -> Any:
    """The seed's model.json with 50 latent dimensions, untrained."""
    from attar import spec
    from attar.train import network

    model = spec.load(Path(__file__).resolve().parent.parent / "models" / "model.json")
    return network.build(model.with_latent_dims(50), seed=1)


@pytest.fixture(scope="module")
def client(photo_bundle: Path) -> Iterator[TestClient]:
    """The web app in this process, with the small bundle for photographs beside those that are shipped."""
    pytest.importorskip("fastapi", reason="attar[web] is not installed")
    from fastapi.testclient import TestClient

    from attar.apps.web.app import create_app
    from attar.apps.web.limits import Limits

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATTAR_MODELS", str(photo_bundle.parent))
        with TestClient(create_app(Limits(max_pixels=200_000)), base_url="http://127.0.0.1:8000") as client:
            yield client


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of `attar train`: a small dense model on real digits."""
    from training_kit import attar, write_model

    folder = tmp_path_factory.mktemp("runs")
    model = write_model(folder / "model.json")
    options = ("--limit", 512, "--epochs", 2, "--learning-rate", 3e-3, "--warmup", 0, "--verbosity", 0)
    result = attar("train", "--model", model, "-o", folder / "run", *options)
    assert (result.code, result.out, result.err) == (0, "", "")
    return folder / "run"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small model.json."""
    from training_kit import write_model

    return write_model(tmp_path / "model.json")


@pytest.fixture
def best(tiny_run: Path) -> Path:
    """The best checkpoint of the tiny run."""
    return tiny_run / "checkpoints" / "best.npz"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where decoded data sets are kept in the test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("ATTAR_CACHE", str(folder))
    return folder


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with three digits, a photograph and no models but the two of the tests."""
    from PIL import Image

    from toy_bundle import digit, photo

    monkeypatch.chdir(tmp_path)
    for seed in range(3):
        Image.fromarray(digit(seed)).save(tmp_path / f"d{seed}.png")
    Image.fromarray(photo()).save(tmp_path / "photo.jpg", quality=95)
    return tmp_path


@pytest.fixture(scope="session")
def runs_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server of :func:`page` looks for training runs."""
    return tmp_path_factory.mktemp("watched")


@pytest.fixture(scope="session")
def page(
    digits_bundle: Path, photo_bundle: Path, runs_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Page]:
    """A browser before a server that also has the two small bundles; skips where no Chromium is installed."""
    pytest.importorskip("selenium", reason="selenium is not installed")
    pytest.importorskip("fastapi", reason="attar[web] is not installed")
    import web_browser

    web_browser.find_chromium()
    models = os.pathsep.join(str(path.parent) for path in (digits_bundle, photo_bundle))
    for address in web_browser.serve("--runs", str(runs_folder), ATTAR_MODELS=models):
        window = web_browser.Page(address, tmp_path_factory.mktemp("chromium"))
        try:
            yield window
        finally:
            window.driver.quit()
