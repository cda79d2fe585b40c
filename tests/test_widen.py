"""training/photo/widen.py: the wider network begins as the old one."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from attar import spec as specs
from attar.train import checkpoint, network
from training_kit import numpy

ROOT = Path(__file__).parents[1]
TINY = ROOT / "tests" / "data" / "tiny_photo.json"
WIDER = {
    ("encoder", 4): 40,
    ("encoder", 6): 40,
    ("decoder", 1): 40,
    ("hyper_decoder", 6): 48,
    ("hyper_scales", 7): 48,
    ("context", 2): 40,
    ("context_scales", 4): 40,
}


def test_a_widened_network_regenerates_what_the_old_one_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.spec_from_file_location("widen", ROOT / "training" / "photo" / "widen.py")
    assert found is not None
    assert found.loader is not None
    widen = importlib.util.module_from_spec(found)
    found.loader.exec_module(widen)
    # Without the small beginnings of what is new, nothing at all may change.
    monkeypatch.setattr(widen, "GENTLE", 0.0)
    monkeypatch.setattr(widen, "QUIET", 0.0)
    document = json.loads(TINY.read_text())
    layers = document["model"]["layers"]["generator"]["layers"]
    for (block, place), filters in WIDER.items():
        (arguments,) = layers[block]["layers"][place].values()
        arguments["filters"] = filters
    (tmp_path / "wide.json").write_text(json.dumps(document))

    before = network.build(specs.load(TINY), seed=3, dtype="float32")
    record = {"model": {}, "digest": "", "config": {}, "dataset": "", "progress": {}}
    checkpoint.save(tmp_path / "old.npz", checkpoint.weights(before), record)
    words = [str(tmp_path / name) for name in ("old.npz", "wide.json", "new.npz")]
    monkeypatch.setattr(sys, "argv", ["widen.py", *words])
    widen.main()

    after = network.build(specs.load(tmp_path / "wide.json"), seed=4, dtype="float32")
    checkpoint.restore_weights(after, checkpoint.load(tmp_path / "new.npz"), "new.npz")
    images = np.random.default_rng(0).integers(0, 256, (1, 64, 128, 3)).astype(np.uint8)
    old, new = (net(images, training=False, quality=0.6) for net in (before, after))
    np.testing.assert_allclose(numpy(new.regenerated), numpy(old.regenerated), atol=1e-5)
    np.testing.assert_array_equal(numpy(new.symbols)[..., :32], numpy(old.symbols))
    assert numpy(new.symbols).shape[-1] == 40
