"""Data sets of TensorFlow Datasets, written by a real builder and read without TensorFlow."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from attar.errors import DatasetError, MissingExtraError
from attar.train import datasets
from attar.train.datasets import load
from some_images import contents, encoded, noise


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("ATTAR_CACHE", str(folder))
    return folder


def prepare(
    data_dir: Path,
    name: str,
    splits: dict[str, int],
    *,
    version: str = "1.0.0",
    key: str = "image",
    extra: bool = False,
    size: tuple[int, int] = (8, 6),
    file_format: str = "array_record",
) -> None:
    """Write a real set with a real builder of TensorFlow Datasets, without TensorFlow."""
    tfds = pytest.importorskip("tensorflow_datasets")
    pytest.importorskip("array_record")
    features = {
        key: tfds.features.Image(shape=(None, None, 3)),
        "label": tfds.features.ClassLabel(num_classes=10),
        "filename": tfds.features.Text(),
    }
    if extra:
        features["mask"] = tfds.features.Image(shape=(None, None, 1))

    class Prepared(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version(version)

        def _info(self) -> Any:
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, manager: Any) -> dict[str, Any]:
            return {split: self._generate_examples(split, count) for split, count in splits.items()}

        def _generate_examples(self, split: str, count: int) -> Iterator[tuple[int, dict[str, Any]]]:
            for number in range(count):
                pixels = noise(number + 1000 * sorted(splits).index(split), *size)
                image = encoded("PNG", Image.fromarray(pixels))
                example: dict[str, Any] = {key: image, "label": number % 10, "filename": f"{number}.png"}
                if extra:
                    example["mask"] = encoded("PNG", Image.new("L", (6, 8)))
                yield number, example

    Prepared.name = name
    tfds.disable_progress_bar()
    Prepared(data_dir=data_dir, file_format=file_format).download_and_prepare()


def test_tfds_sets_keep_their_splits(tmp_path: Path) -> None:
    prepare(tmp_path, "shapes", {"train": 20, "validation": 5, "test": 7, "unlabelled": 4})
    data = load("shapes", tfds=True, data_dir=tmp_path)
    assert data.name == "shapes"
    assert data.shape == (8, 6, 3)
    assert (len(data.train), len(data.validation), len(data.test)) == (20, 5, 7)
    assert data.train.name(3) == "shapes/train/3"
    assert contents(data.train) == {noise(n, 8, 6).tobytes() for n in range(1000, 1020)}
    assert contents(data.validation) == {noise(n, 8, 6).tobytes() for n in range(3000, 3005)}
    assert contents(data.test) == {noise(n, 8, 6).tobytes() for n in range(7)}


# Their own code, by name and version, reads what lies there.
@pytest.mark.parametrize(("name", "version"), [("mnist", "3.0.1"), ("cifar10", "3.0.2")])
def test_tfds_mnist_and_cifar10_halve_their_test_split(tmp_path: Path, name: str, version: str) -> None:
    prepare(tmp_path, name, {"train": 12, "test": 10}, version=version)
    data = load(name, tfds=True, data_dir=tmp_path)
    assert (len(data.train), len(data.validation), len(data.test)) == (12, 5, 5)
    assert data.validation.name(0) == f"{name}/test/0"
    assert data.test.name(0) == f"{name}/test/5"


def test_tfds_eurosat_is_split_80_10_10(tmp_path: Path) -> None:
    prepare(tmp_path, "eurosat", {"train": 200}, version="2.0.0")
    (tmp_path / "eurosat" / "rgb").mkdir()
    (tmp_path / "eurosat" / "2.0.0").rename(tmp_path / "eurosat" / "rgb" / "2.0.0")
    data = load("eurosat", tfds=True, data_dir=tmp_path, seed=1)
    sizes = [len(data.train), len(data.validation), len(data.test)]
    assert sum(sizes) == 200
    assert sizes == pytest.approx([160, 20, 20], abs=12)
    assert not contents(data.train) & (contents(data.validation) | contents(data.test))
    assert not contents(data.validation) & contents(data.test)


def test_tfds_set_whose_preparing_needs_tensorflow(tmp_path: Path) -> None:
    tfds = pytest.importorskip("tensorflow_datasets")
    if importlib.util.find_spec("tensorflow") is not None:
        pytest.skip("TensorFlow is installed")

    class AttarArrays(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self) -> Any:
            features = tfds.features.FeaturesDict({"image": tfds.features.Image(shape=(4, 4, 3))})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, manager: Any) -> dict[str, Any]:
            return {"train": self._generate_examples()}

        def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
            yield 0, {"image": noise(0, 4, 4)}  # an array: encoded by TensorFlow

    with pytest.raises(
        DatasetError,
        match=r"'attar_arrays' ready .*: preparing this set \(not reading it\) needs TensorFlow: pip install",
    ):
        load("attar_arrays", tfds=True, data_dir=tmp_path)


def test_tfds_needs_no_tensorflow(tmp_path: Path) -> None:
    prepare(tmp_path, "shapes", {"train": 20})
    code = (
        "import sys; from attar.train.datasets import load\n"
        f"data = load('shapes', tfds=True, data_dir={str(tmp_path)!r}, crop=4)\n"
        "assert data.shape == (4, 4, 3), data.shape\n"
        "assert not {'tensorflow', 'keras', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_tfds_image_feature_of_any_name(tmp_path: Path) -> None:
    prepare(tmp_path, "named", {"train": 5}, key="photo")
    assert load("named", tfds=True, data_dir=tmp_path).shape == (8, 6, 3)
    prepare(tmp_path, "several", {"train": 5}, key="photo", extra=True)
    with pytest.raises(
        DatasetError, match=r"several: no feature 'image', and 2 image features \(mask, photo\)"
    ):
        load("several", tfds=True, data_dir=tmp_path)


def test_tfds_set_that_is_not_there(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow_datasets")
    with pytest.raises(
        DatasetError, match=r"has no 'nonesuch' ready in .* and cannot prepare it \(DatasetNotFound"
    ):
        load("nonesuch", tfds=True, data_dir=tmp_path)


def test_tfds_set_in_a_format_for_tensorflow(tmp_path: Path) -> None:
    prepare(tmp_path, "shapes", {"train": 5})
    info = tmp_path / "shapes" / "1.0.0" / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(DatasetError, match="prepare it in another folder with"):
        load("shapes", tfds=True, data_dir=tmp_path)


def test_tfds_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(
        MissingExtraError, match=r"tensorflow-datasets is not installed: pip install 'attar\[tfds\]'"
    ):
        load("mnist", tfds=True)


def test_public_names() -> None:
    assert datasets.__all__ == ["Dataset", "Split", "batches", "load"]
