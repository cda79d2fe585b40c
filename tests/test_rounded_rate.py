"""The rate of rounded symbols: exact for the distribution, and unbiased rounding for what is rounded."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attar.train.hyperlatents import logistic_bits
from attar.train.rounding import crossing, rate
from training_kit import numpy

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="gradients are taken by PyTorch here"
)


def logistic(scale: Any) -> Any:
    """Bits of integers under a logistic of a scale."""

    def bits(symbols: Any) -> Any:
        upper, lower = torch.sigmoid((symbols + 0.5) / scale), torch.sigmoid((symbols - 0.5) / scale)
        return -torch.log2(upper - lower)

    return bits


@given(st.integers(-900, 900).map(lambda n: n / 100), st.floats(0.4, 3))
def test_gradients(value: float, scale: float) -> None:
    values = torch.tensor([value], dtype=torch.float64, requires_grad=True)
    scales = torch.tensor([scale], dtype=torch.float64, requires_grad=True)
    found = rate(values, logistic(scales), training=True)
    found.sum().backward()  # type: ignore[no-untyped-call]

    again = torch.tensor([scale], dtype=torch.float64, requires_grad=True)
    exact = logistic(again)(torch.round(values.detach()))
    exact.sum().backward()  # type: ignore[no-untyped-call]
    assert float(found.detach()) == pytest.approx(float(exact.detach()))
    assert float(numpy(scales.grad)[0]) == pytest.approx(float(numpy(again.grad)[0]))
    below, above = (float(logistic(scale)(torch.tensor(np.floor(value) + side))) for side in (0, 1))
    assert float(numpy(values.grad)[0]) == pytest.approx(above - below, rel=1e-4, abs=1e-4)


def test_the_slope_is_that_of_rounding_at_random() -> None:
    bits, rng = logistic(0.7), np.random.default_rng(0)
    uniform = torch.from_numpy(rng.uniform(size=400_000))

    def expected(value: float) -> float:
        low = np.floor(value)
        return float(bits(low + (uniform < value - low)).mean())

    for value in (-1.7, 0.3, 2.6):
        here = torch.tensor([value], dtype=torch.float64, requires_grad=True)
        rate(here, bits, training=True).sum().backward()
        assert float(numpy(here.grad)[0]) == pytest.approx(
            (expected(value + 0.1) - expected(value - 0.1)) / 0.2, rel=0.03
        )


def test_validation_counts_the_bits_of_what_is_coded() -> None:
    values = torch.tensor([-2.5, -0.4, 0.5, 0.6, 1.5])
    bits = logistic(0.7)
    np.testing.assert_allclose(
        numpy(rate(values, bits, False)), numpy(bits(torch.tensor([-2.0, 0, 0, 1, 2])))
    )
    np.testing.assert_allclose(numpy(rate(values, bits, True)), numpy(rate(values, bits, False)))


@pytest.mark.parametrize("scale", [0.06, 0.08, 0.099, 0.3, 2.0])
def test_growing_all_values_costs_what_the_gradient_says(scale: float) -> None:
    """Bits of logistic values, all of them made larger: as counted, by the gradient, and by the plain gradient."""
    uniform = (torch.arange(1_000_000, dtype=torch.float64) + 0.5) / 1_000_000
    values = scale * (torch.log(uniform) - torch.log1p(-uniform))
    inverse = torch.full_like(values, 1 / scale)

    def bits(symbols: Any) -> Any:
        return logistic_bits(symbols, inverse)

    def by_gradient(weight: Any) -> float:
        inside = values.clone().requires_grad_()
        rate(inside, bits, True, weight * inside).mean().backward()
        return float((numpy(inside.grad) * numpy(inside)).sum())

    counted = float((bits(torch.round(values * 1.02)) - bits(torch.round(values * 0.98))).mean()) / 0.04
    assert by_gradient(crossing(values, inverse)) == pytest.approx(counted, rel=0.15)
    if scale < 0.07:
        assert by_gradient(1.0) > 10 * counted > 0
