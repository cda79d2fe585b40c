"""`--balance`: the loss as it was, with the gradients of its logarithm."""

from __future__ import annotations

import keras
import pytest
import torch

from attar.errors import TrainingError
from attar.train.losses import Loss
from training_kit import numpy

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="gradients are taken by PyTorch here"
)


@pytest.mark.parametrize("lambdas", [None, (0.01, 0.04, 0.2)])
@pytest.mark.parametrize("balance", [0.5, 1.0])
def test_an_image_of_much_detail_counts_for_less(balance: float, lambdas: tuple[float, ...] | None) -> None:
    rng = torch.Generator().manual_seed(0)
    images = torch.rand((3, 16, 16, 3), generator=rng)
    noise = torch.randn((3, 16, 16, 3), generator=rng) * torch.tensor([0.01, 0.05, 0.2])[:, None, None, None]
    bits = torch.tensor([10.0, 100.0, 900.0])
    given = None if lambdas is None else torch.tensor(lambdas)

    def value_and_gradients(share: float) -> tuple[float, torch.Tensor, torch.Tensor]:
        made, spent = (images + noise).requires_grad_(), bits.clone().requires_grad_()
        value, _ = Loss("mse", lmbda=0.5, balance=share)(images, made, spent, given)
        value.backward()
        assert made.grad is not None
        assert spent.grad is not None
        return float(value.detach()), made.grad, spent.grad

    plain, errors, rates = value_and_gradients(0.0)
    value, balanced_errors, balanced_rates = value_and_gradients(balance)
    assert value == pytest.approx(plain)
    for k in range(3):
        alone = float(
            Loss("mse", lmbda=0.5)(
                images[[k]], (images + noise)[[k]], bits[[k]], None if given is None else given[[k]]
            )[0]
        )
        torch.testing.assert_close(balanced_errors[k], errors[k] / alone**balance, rtol=1e-4, atol=1e-9)
        assert float(balanced_rates[k]) == pytest.approx(float(rates[k]) / alone**balance, rel=1e-4)


def test_an_image_that_is_right_already_breaks_nothing() -> None:
    made = torch.zeros((2, 8, 8, 1), requires_grad=True)
    bits = torch.zeros(2, requires_grad=True)
    value, _ = Loss("mse", balance=1.0)(torch.zeros((2, 8, 8, 1)), made, bits)
    value.backward()
    assert float(value.detach()) == 0
    assert numpy(bits.grad).max() < 1e6


def test_the_share_is_one_at_most() -> None:
    with pytest.raises(TrainingError, match="balance 2"):
        Loss(balance=2)
