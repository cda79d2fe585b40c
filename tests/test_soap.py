"""SOAP, the second-order optimizer of the PyTorch step."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import pytest

from attar.errors import TrainingError
from attar.train import losses, steps
from training_kit import build, dense, digits, numpy

torch_only = pytest.mark.skipif(keras.backend.backend() != "torch", reason="SOAP runs on PyTorch only")


@torch_only
def test_what_is_a_matrix_and_what_is_left_to_adam() -> None:
    from attar.train import soap

    assert soap.matrix_shape((1, 1, 160, 320)) == (160, 320)
    assert soap.matrix_shape((50, 784)) == (50, 784)
    others = ((3, 3, 160, 160), (160,), (1, 1, 160, 8), (4096, 64), (3, 3, 160, 1), ())
    assert [soap.matrix_shape(shape) for shape in others] == [None] * len(others)
    assert soap.state_shapes((160,)) == {"step": (), "exp_avg": (160,), "exp_avg_sq": (160,)}


@torch_only
def test_a_skewed_quadratic_is_solved_in_far_fewer_steps_than_by_adam() -> None:
    """Least squares with correlated inputs, whose axes are not the weights' own: Adam's worst case."""
    import torch

    from attar.train.soap import Soap

    generator = torch.Generator().manual_seed(3)
    turn = torch.linalg.qr(torch.randn(32, 32, generator=generator))[0]
    inputs = torch.randn(512, 32, generator=generator) * torch.logspace(0, -1, 32) @ turn.T
    wanted = inputs @ torch.randn(32, 24, generator=generator)

    def left(make: type) -> float:
        weight = torch.zeros(32, 24, requires_grad=True)
        optimizer = make([weight], betas=(0.9, 0.999), eps=1e-8)
        for step in range(400):
            optimizer.param_groups[0]["lr"] = 0.03 * min(1.0, (400 - step) / 200)
            optimizer.zero_grad()
            loss = ((inputs @ weight - wanted) ** 2).mean()
            loss.backward()
            optimizer.step()
        return loss.item()

    assert left(Soap) < left(torch.optim.Adam) / 100


@torch_only
def test_a_step_with_soap_learns_and_restores_to_the_same_numbers() -> None:
    images = digits(32)
    net = build(dense(), seed=1)
    step = steps.make_step(net, losses.Loss(lmbda=0.001), optimizer="soap")
    found = [numpy(step(images, 1e-2))[0] for _ in range(40)]
    assert found[-1] < 0.85 * found[0]
    state = step.state()
    assert {name.rsplit("/", 1)[1] for name in state if name.startswith("optimizer/")} >= {
        "left_basis",
        "right",
    }
    kept = {name: numpy(variable).copy() for name, variable in net.named_variables().items()}
    expected = [numpy(step(images, 1e-3)) for _ in range(12)]  # past a turn of the basis
    again = build(dense(), seed=9)
    for name, variable in again.named_variables().items():
        variable.assign(kept[name])
    other = steps.make_step(again, losses.Loss(lmbda=0.001), optimizer="soap")
    split = {part: {} for part in ("optimizer", "average", "random")}
    for name, value in state.items():
        part, rest = name.split("/", 1)
        split[part][rest] = value
    other.restore(*split.values())
    np.testing.assert_allclose([numpy(other(images, 1e-3)) for _ in range(12)], expected, rtol=1e-6)


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="PyTorch has SOAP")
def test_soap_on_another_backend_is_refused() -> None:
    with pytest.raises(TrainingError, match="soap runs on PyTorch only"):
        steps.make_step(build(dense()), losses.Loss(), optimizer="soap")


@torch_only
@pytest.mark.parametrize("fault", ["fails", "nan"])
def test_a_basis_that_single_precision_does_not_find(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """LAPACK did both with the gradient of a first batch; a matrix that it does so with everywhere is not known."""
    import torch

    from attar.train.soap import LEAST_SIDE, Soap

    eigh = torch.linalg.eigh

    def fragile(matrix: Any) -> Any:
        values, vectors = eigh(matrix)
        if matrix.dtype == torch.float64:
            return values, vectors
        if fault == "fails":
            raise torch.linalg.LinAlgError("linalg.eigh: The algorithm failed to converge")
        return values, torch.full_like(vectors, math.nan)

    monkeypatch.setattr(torch.linalg, "eigh", fragile)
    side = LEAST_SIDE
    weight = torch.nn.Parameter(torch.zeros(side, side))
    optimizer = Soap([weight], (0.95, 0.95), 1e-8)
    weight.grad = torch.ones(side, 1) @ torch.arange(float(side))[None]
    optimizer.step()
    basis = optimizer.state[weight]["left_basis"]
    assert basis.dtype == torch.float32
    assert torch.allclose(basis.T @ basis, torch.eye(side), atol=1e-5)
