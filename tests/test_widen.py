"""training/photo/widen.py: the wider network begins as the old one."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from attar import spec as specs
from attar.train import checkpoint, datasets, network
from training_kit import numpy

ROOT = Path(__file__).parents[1]
PHOTOS = ROOT / "src" / "attar" / "data" / "photos"
TINY = ROOT / "tests" / "data" / "tiny_photo.json"
WIDER = {
    ("encoder", 4): 40,
    ("encoder", 8): 40,
    ("decoder", 1): 40,
    ("hyper_decoder", 6): 48,
    ("hyper_scales", 7): 48,
    ("context", 2): 40,
    ("context_scales", 4): 40,
}


def test_a_wider_network_keeps_the_old_symbols_and_loses_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.spec_from_file_location("widen", ROOT / "training" / "photo" / "widen.py")
    assert found is not None
    assert found.loader is not None
    widen = importlib.util.module_from_spec(found)
    found.loader.exec_module(widen)
    document = json.loads(TINY.read_text())
    layers = document["model"]["layers"]["generator"]["layers"]
    for (block, place), filters in WIDER.items():
        (arguments,) = layers[block]["layers"][place].values()
        arguments["filters"] = filters
    (tmp_path / "wide.json").write_text(json.dumps(document))

    before = network.build(specs.load(TINY), seed=3, dtype="float32")
    record = {"model": {}, "digest": "", "config": {}, "dataset": "", "progress": {}}
    checkpoint.save(tmp_path / "old.npz", checkpoint.weights(before), record)
    words = [
        tmp_path / "old.npz",
        tmp_path / "wide.json",
        PHOTOS,
        tmp_path / "new.npz",
        "--crop",
        64,
        "--crops",
        24,
    ]
    monkeypatch.setattr(sys, "argv", ["widen.py", *map(str, words)])
    widen.main()

    after = network.build(specs.load(tmp_path / "wide.json"), seed=4, dtype="float32")
    checkpoint.restore_weights(after, checkpoint.load(tmp_path / "new.npz"), "new.npz")
    images = np.array(next(datasets.batches(datasets.load(str(PHOTOS), crop=128).train, 2, seed=9))[1])
    old, new = (net(images, training=False, quality=0.6) for net in (before, after))
    np.testing.assert_array_equal(numpy(new.symbols)[..., :32], numpy(old.symbols))
    assert np.any(numpy(new.symbols)[..., 32:])
    losses = []
    for net in (before, after):
        quality = keras.ops.full((2,), widen.FITTED_AT, "float32")
        image = net.synthesis([net.analysis([keras.ops.convert_to_tensor(images), quality]), quality])
        losses.append(np.mean((numpy(image) - images / 255) ** 2))
    assert losses[1] < 0.95 * losses[0]
