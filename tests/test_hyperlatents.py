"""The block ``hyper_prior``: what it knows of hyper-latents, and that training/photo/hyper.py makes it useful."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attar import spec as specs
from attar.codec import hyperlatents as coded
from attar.codec import manifest
from attar.errors import SpecError
from attar.train import hyperlatents, network
from training_kit import numpy

ROOT = Path(__file__).parents[1]
TINY = ROOT / "tests" / "data" / "tiny_photo.json"


def entropy(symbols: np.ndarray) -> float:
    """Bits of all channels of one position, each with the best distribution of its own."""
    total = 0.0
    for channel in symbols.reshape(-1, symbols.shape[-1]).T:
        _, counts = np.unique(channel, return_counts=True)
        total -= float((counts / channel.size * np.log2(counts / channel.size)).sum())
    return total


def test_training_and_files_have_the_same_passes() -> None:
    for shape in ((1, 1, 1), (4, 6, 8), (5, 3, 7)):
        assert np.array_equal(numpy(hyperlatents.pass_of(*shape)), coded.pass_of(shape))
    levels = numpy(hyperlatents.levels(torch.arange(100) / 99))
    assert np.array_equal(levels, np.arange(100) // manifest.HYPER_LEVELS)


def test_a_pass_sees_no_symbol_of_its_own_or_of_a_later_one() -> None:
    symbols = torch.full((2, 4, 4, 8), 3.0)
    order = coded.pass_of((4, 4, 8))
    for number in range(4):
        seen, known = hyperlatents.known(symbols, number, torch.tensor([2.0, 12.0]))
        assert np.array_equal(numpy(seen), 3.0 * np.broadcast_to(order < number, seen.shape))
        assert np.array_equal(numpy(known)[0, ..., :4], order[..., :4] < number)
        assert np.array_equal(numpy(known)[:, 0, 0, 4], [2, 12])


def test_every_table_is_a_distribution_around_its_fraction() -> None:
    mass = hyperlatents.HyperTables().probabilities(-4000, 4000)
    assert mass.shape == (hyperlatents.TABLES, 8001)
    assert np.allclose(mass.sum(1), 1, atol=1e-9)
    means = (mass @ np.arange(-4000, 4001)).reshape(-1, hyperlatents.FRACTIONS)
    assert np.allclose(
        means[8:], np.arange(-4, 5) / 8, atol=1e-3
    )  # a narrow one is all on its nearest integer


def test_a_fit_makes_repeated_hyper_latents_cheaper_than_their_entropy() -> None:
    found = importlib.util.spec_from_file_location("hyper", ROOT / "training" / "photo" / "hyper.py")
    assert found is not None
    assert found.loader is not None
    script = importlib.util.module_from_spec(found)
    found.loader.exec_module(script)
    net: Any = network.build(specs.load(TINY), seed=0, dtype="float32")
    rng = np.random.default_rng(0)
    plain = np.rint(rng.normal(0, 3, (2030, 1, 1, 8))) + np.zeros(
        (1, 6, 6, 1)
    )  # the same one all over an image
    symbols, quality = torch.tensor(plain, dtype=torch.float32), torch.rand(2030)
    torch.manual_seed(0)
    script.RATE = 8e-3
    script.fit(net, (symbols[:2000], quality[:2000]), (symbols[2000:], quality[2000:]), 200)
    bits = net.hyper_bits(symbols[2000:], quality[2000:], False)(symbols[2000:])
    each = float(numpy(bits).sum((1, 2, 3)).mean()) / 36
    assert each < 0.85 * entropy(plain)


def test_a_block_of_another_width_or_of_other_layers_is_refused() -> None:
    for place, change, message in (
        (-1, {"filters": 23}, "gives 23 channels, expected three for each of 8"),
        (0, None, "only IntegerConv2D, .* compute in integers"),
    ):
        document = json.loads(TINY.read_text())
        layers = document["model"]["layers"]["generator"]["layers"]["hyper_prior"]["layers"]
        if change is None:
            layers[place] = {"Conv2D": {"filters": 32, "kernel_size": 1}}
        else:
            layers[place]["IntegerConv2D"].update(change)
        with pytest.raises(SpecError, match=message):
            network.build(specs.parse(document, "model.json"), seed=0)
