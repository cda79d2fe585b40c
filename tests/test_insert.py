"""training/photo/insert.py: a network with more layers begins as the old one."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attar import spec as specs
from attar.train import checkpoint, network
from training_kit import numpy

ROOT = Path(__file__).parents[1]
TINY = ROOT / "tests" / "data" / "tiny_photo.json"
GAIN = {"QualityGain": {"levels": 3, "lowest": 0.0, "highest": 0.0}}
SHIFT = {"QualityShift": {"levels": 5}}


@pytest.fixture
def insert(monkeypatch: pytest.MonkeyPatch) -> Any:
    found = importlib.util.spec_from_file_location("insert", ROOT / "training" / "photo" / "insert.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)

    def run(*words: object) -> None:
        monkeypatch.setattr(sys, "argv", ["insert.py", *map(str, words)])
        module.main()

    run.module = module  # type: ignore[attr-defined]
    return run


def layers_of(document: Any, block: str) -> list[Any]:
    layers: list[Any] = document["model"]["layers"]["generator"]["layers"][block]["layers"]
    return layers


def kept(folder: Path) -> tuple[Any, Path]:
    net = network.build(specs.load(TINY), seed=3, dtype="float32")
    record = {
        "model": json.loads(TINY.read_text()),
        "digest": "",
        "config": {},
        "dataset": "",
        "progress": {},
    }
    checkpoint.save(folder / "old.npz", checkpoint.weights(net), record)
    return net, folder / "old.npz"


def test_a_network_with_new_layers_between_gives_the_same(insert: Any, tmp_path: Path) -> None:
    before, old = kept(tmp_path)
    document = json.loads(TINY.read_text())
    layers_of(document, "encoder").insert(2, GAIN)
    layers_of(document, "decoder").insert(2, SHIFT)
    (tmp_path / "more.json").write_text(json.dumps(document))
    insert(old, tmp_path / "more.json", tmp_path / "new.npz")
    spec = specs.load(tmp_path / "more.json")
    made = checkpoint.load(tmp_path / "new.npz")
    assert made.record["digest"] == spec.digest()
    after: Any = network.build(spec, seed=9, dtype="float32")
    checkpoint.restore_weights(after, made, "new.npz")
    assert len(after.weights) == len(before.weights) + 2
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    for quality in (0.0, 0.4, 1.0):
        expected, found = (net(images, training=False, quality=quality) for net in (before, after))
        np.testing.assert_array_equal(numpy(found.symbols), numpy(expected.symbols))
        np.testing.assert_allclose(numpy(found.regenerated), numpy(expected.regenerated), atol=1e-6)


def test_a_block_of_another_kind_begins_as_nothing(
    insert: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, old = kept(tmp_path)
    document = json.loads(TINY.read_text())
    decoder = layers_of(document, "decoder")
    place = next(i for i, layer in enumerate(decoder) if "GatedBlock" in layer)
    decoder[place] = {"InvertedBlock": {"expansion": 2.0}}
    (tmp_path / "other.json").write_text(json.dumps(document))
    insert(old, tmp_path / "other.json", tmp_path / "new.npz")
    assert f"left behind: model.layers.generator.layers.decoder.layers[{place}]" in capsys.readouterr().out
    after: Any = network.build(specs.load(tmp_path / "other.json"), seed=9, dtype="float32")
    checkpoint.restore_weights(after, checkpoint.load(tmp_path / "new.npz"), "new.npz")
    for name, variable in before.named_variables().items():
        if name.startswith(f"decoder_{place}_gatedblock/project"):
            variable.assign(np.zeros(variable.shape, "float32"))
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    expected, found = (net(images, training=False, quality=0.4) for net in (before, after))
    np.testing.assert_array_equal(numpy(found.symbols), numpy(expected.symbols))
    np.testing.assert_allclose(numpy(found.regenerated), numpy(expected.regenerated), atol=1e-6)


def test_as_many_layers_move_as_can(insert: Any) -> None:
    """A longest run of equal layers, taken first, would leave one of the three behind."""
    common = insert.module.common
    assert common(list("PGGGC"), list("PGIGGIC")) == [(0, 0), (1, 1), (2, 3), (3, 4), (4, 6)]
    assert len(common(list("PGGGC"), list("GGC"))) == 3
    assert common([], ["P"]) == []
