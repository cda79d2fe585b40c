"""SOAP for PyTorch: Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al. 2024, arXiv:2409.11321).

Networks of 1x1 convolutions are matrices, whose gradients are far from independent in the weights' own axes.
SOAP keeps both covariances of each matrix's gradient, turns the gradient into their eigenvectors and takes
Adam's step there. Learned codecs need less than half of Adam's steps with it (Zhang and Zhu 2026,
arXiv:2601.20769); training/photo/LOG.md has what it gains here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.optim.adam import adam

LEAST_SIDE, MOST_SIDE = 16, 2048
"""Sides of a matrix that is worth the turning, and whose covariance is not too large."""
BETAS, EPSILON = (0.95, 0.95), 1e-8  # of the paper, for gradients in the eigenbasis
TURN_EVERY = 10  # steps between two looks at the eigenvectors
LOOK_EVERY = 2  # steps between two gradients that the covariances see: a sixth of the products less
COVARIANCES = (("left", "left_basis"), ("right", "right_basis"))


class Soap(torch.optim.Optimizer):
    """SOAP for the matrices among the weights, Adam for the rest.

    A matrix is a kernel (1, 1, C, F), or a weight (C, F), with both sides in ``LEAST_SIDE..MOST_SIDE``.

    Args:
        weights: what is trained.
        betas: Adam's, for the rest.
        eps: likewise.
    """

    def __init__(self, weights: Sequence[Any], betas: tuple[float, float], eps: float) -> None:
        super().__init__(weights, {"lr": 1e-3})
        matrices = [weight for weight in weights if matrix_shape(weight.shape)]
        chosen = set(map(id, matrices))
        self.matrices = matrices
        self.rest = [weight for weight in weights if id(weight) not in chosen]
        self.betas, self.eps = betas, eps

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:
        """One step at the learning rate of the parameter group."""
        del closure
        rate = self.param_groups[0]["lr"]
        for weight in self.matrices:
            if weight.grad is not None:
                self._turned_step(weight, rate)
        self._adam_step([weight for weight in self.rest if weight.grad is not None], rate)

    def _turned_step(self, weight: Any, rate: float) -> None:
        gradient = weight.grad.reshape(matrix_shape(weight.shape))
        state = self.state[weight]
        if not state:
            self._begin(state, gradient)
            return  # there is no basis that this gradient did not make itself
        state["step"] += 1
        count, (first, second) = float(state["step"]), BETAS
        left, right = state["left_basis"], state["right_basis"]
        turned = left.T @ gradient @ right
        state["exp_avg"].lerp_(turned, 1 - first)
        state["exp_avg_sq"].lerp_(turned.square(), 1 - second)
        mean, square = state["exp_avg"] / (1 - first**count), state["exp_avg_sq"] / (1 - second**count)
        update = left @ (mean / (square.sqrt_() + EPSILON)) @ right.T
        weight.add_(update.reshape(weight.shape), alpha=-rate)
        if count % LOOK_EVERY == 0:
            share = 1 - second**LOOK_EVERY
            state["left"].lerp_(gradient @ gradient.T, share)
            state["right"].lerp_(gradient.T @ gradient, share)
        if count % TURN_EVERY == 0:
            self._turn(state)

    def _begin(self, state: dict[str, Any], gradient: Any) -> None:
        state["step"] = torch.zeros((), dtype=torch.float32)
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
        state["left"], state["right"] = gradient @ gradient.T, gradient.T @ gradient
        for covariance, basis in COVARIANCES:
            state[basis] = _eigenvectors(state[covariance]).flip(1).contiguous()

    def _turn(self, state: dict[str, Any]) -> None:
        """Follow the covariances by one step of orthogonal iteration, and take the moments along."""
        mean = state["left_basis"] @ state["exp_avg"] @ state["right_basis"].T
        for axis, (covariance, basis) in enumerate(COVARIANCES):
            matrix, old = state[covariance], state[basis]
            order = torch.diagonal(old.T @ matrix @ old).argsort(descending=True)
            state[basis] = torch.linalg.qr(matrix @ old[:, order])[0]
            state["exp_avg_sq"] = state["exp_avg_sq"].index_select(axis, order)
        state["exp_avg"] = state["left_basis"].T @ mean @ state["right_basis"]

    def _adam_step(self, weights: Sequence[Any], rate: float) -> None:
        names = ("step", "exp_avg", "exp_avg_sq")
        for weight in weights:
            if not self.state[weight]:
                zeros = (torch.zeros((), device=weight.device), *(torch.zeros_like(weight) for _ in range(2)))
                self.state[weight].update(zip(names, zeros, strict=True))
        steps, means, squares = ([self.state[weight][name] for weight in weights] for name in names)
        adam(
            list(weights),
            [weight.grad for weight in weights],
            means,
            squares,
            [],
            steps,
            fused=True,
            amsgrad=False,
            beta1=self.betas[0],
            beta2=self.betas[1],
            lr=rate,
            weight_decay=0.0,
            eps=self.eps,
            maximize=False,
        )


def _eigenvectors(matrix: Any) -> Any:
    """Of a covariance, as columns. One batch's has hardly any rank: in single precision LAPACK may fail, or say NaN."""
    try:
        found = torch.linalg.eigh(matrix)[1]
        if torch.isfinite(found).all():
            return found
    except torch.linalg.LinAlgError:
        pass
    return torch.linalg.eigh(matrix.double())[1].to(matrix.dtype)


def matrix_shape(shape: Sequence[int]) -> tuple[int, int] | None:
    """(C, F) of a 1x1 kernel or a matrix that SOAP trains; None for what Adam trains."""
    *outer, inputs, outputs = shape if len(shape) in (2, 4) else (0, 0, 0)
    inside = all(LEAST_SIDE <= side <= MOST_SIDE for side in (inputs, outputs))
    return (inputs, outputs) if inside and all(side == 1 for side in outer) else None


def state_shapes(shape: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Shape of each part of SOAP's state of a weight of this shape."""
    sides = matrix_shape(shape)
    if sides is None:
        return adam_shapes(shape)
    squares = {name: (side, side) for side, pair in zip(sides, COVARIANCES, strict=True) for name in pair}
    return {**adam_shapes(sides), **squares}


def adam_shapes(shape: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """The same for Adam's state."""
    return {"step": (), "exp_avg": tuple(shape), "exp_avg_sq": tuple(shape)}
