"""The training step on PyTorch, eager or compiled, on the CPU or a GPU, in one process or in several.

PyTorch's own fused Adam is used, or SOAP: Keras's Adam costs more than forward and backward pass of a small
network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from attar.errors import CheckpointError
from attar.train import losses, soap, steps
from attar.train.network import Network
from attar.train.parallel import ALONE, Team, each_tensor
from attar.train.tensors import to_numpy


class TorchStep:
    """A :class:`attar.train.steps.Step`; for the arguments see :func:`attar.train.steps.make_step`."""

    def __init__(
        self,
        network: Network,
        loss: losses.Loss,
        clip_norm: float | None,
        average: float,
        compiled: bool,
        optimizer: str = "adam",
        team: Team = ALONE,
        micro_batch: int | None = None,
    ) -> None:
        self.network, self.loss, self.clip_norm, self.momentum = network, loss, clip_norm, average
        self.compiled, self.team, self.micro_batch = compiled, team, micro_batch
        trainable = steps.trained_variables(network)
        self.names = list(trainable)
        self.weights = [variable.value for variable in trainable.values()]
        rest = [variable.value for variable in network.non_trainable_variables]
        self.statistics = [value for value in rest if value.is_floating_point()]
        self.device = self.weights[0].device
        self.optimizer: torch.optim.Optimizer
        if optimizer == "soap":
            self.optimizer = soap.Soap(self.weights, steps.BETAS, steps.EPSILON)
            self.shapes = [soap.state_shapes(weight.shape) for weight in self.weights]
        else:
            self.optimizer = torch.optim.Adam(self.weights, betas=steps.BETAS, eps=steps.EPSILON, fused=True)
            self.shapes = [soap.adam_shapes(weight.shape) for weight in self.weights]
        self.average = [weight.detach().clone() for weight in self.weights] if average else []
        self.done = 0
        self.forward = self.compile(self.measure)

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, compiled if the step is to be."""
        return torch.compile(function) if self.compiled else function

    def measure(self, images: Any, drawn: dict[str, Any]) -> tuple[Any, Any]:
        """Images (B, H, W, C) uint8 and what was drawn -> loss, and METRICS."""
        return steps.measure(self.network, self.loss, images, training=True, **drawn)

    def __call__(self, images: np.ndarray, learning_rate: float) -> Any:
        """See :class:`attar.train.steps.Step`."""
        batch, drawn = self.prepare(images)
        count = len(batch)
        self.optimizer.zero_grad(set_to_none=True)
        total: Any = 0.0
        for start in range(0, count, self.micro_batch or count):
            rows = slice(start, start + (self.micro_batch or count))
            value, metrics = self.forward(batch[rows], each_tensor(lambda tensor: tensor[rows], drawn))  # noqa: B023
            share = len(batch[rows]) / count
            (share * value).backward()
            total = total + share * metrics
        self.update(total, learning_rate)
        return total

    def prepare(self, images: np.ndarray) -> tuple[Any, dict[str, Any]]:
        """Images on the device, and the random numbers for them: their share of those of the whole batch."""
        whole = (len(images) * self.team.size, *images.shape[1:])
        batch = torch.from_numpy(images).to(self.device, non_blocking=True)
        return batch, self.team.share(self.network.draw(whole))

    def descend(self, value: Any, metrics: Any, learning_rate: float) -> None:
        """One step down the loss ``value``; the metrics become, in place, those of the whole batch."""
        self.optimizer.zero_grad(set_to_none=True)
        value.backward()
        self.update(metrics, learning_rate)

    def update(self, metrics: Any, learning_rate: float) -> None:
        """One step by the gradient that the weights hold; the metrics become, in place, those of the whole batch."""
        gradients = [weight.grad for weight in self.weights if weight.grad is not None]
        self.team.average([*gradients, *self.statistics, metrics])
        if self.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.weights, self.clip_norm)
        self.optimizer.param_groups[0]["lr"] = learning_rate
        self.optimizer.step()
        self.done += 1
        if self.average:
            with torch.no_grad():
                share = 1.0 - steps.momentum_after(self.momentum, self.done)
                torch._foreach_lerp_(self.average, self.weights, share)

    def state(self) -> dict[str, np.ndarray]:
        """See :class:`attar.train.steps.Step`."""
        arrays = {}
        for name, weight in zip(self.names, self.weights, strict=True):
            for key, value in self.optimizer.state.get(weight, {}).items():
                arrays[f"optimizer/{name}/{key}"] = to_numpy(value)
        for name, value in zip(self.names, self.average, strict=False):
            arrays[f"average/{name}"] = to_numpy(value)
        # Keras's dropout without a seed of its own draws from PyTorch's global generator.
        arrays["random/torch"] = to_numpy(torch.get_rng_state())
        if self.device.type == "cuda":
            arrays["random/cuda"] = to_numpy(torch.cuda.get_rng_state(self.device))
        return arrays

    def restore(self, optimizer: steps.Arrays, average: steps.Arrays, random: steps.Arrays) -> None:
        """See :class:`attar.train.steps.Step`."""
        states = []
        for name, shapes in zip(self.names, self.shapes, strict=True):
            kept = {key: optimizer[f"{name}/{key}"] for key in shapes if f"{name}/{key}" in optimizer}
            # A weight that had no gradient yet has no state; half a state is damage.
            if kept and {key: value.shape for key, value in kept.items()} != shapes:
                raise CheckpointError(f"the optimizer's state of {name} is incomplete or of another shape")
            states.append(kept)
        if not any(states):
            raise CheckpointError("it holds no state of PyTorch's optimizer")
        if self.average:
            steps.check_average(self.names, [value.shape for value in self.average], average)
        for weight, kept in zip(self.weights, states, strict=True):
            if kept:
                self.optimizer.state[weight] = {
                    key: torch.tensor(value, dtype=torch.float32, device=self.device)
                    for key, value in kept.items()
                }
        for name, value in zip(self.names, self.average, strict=False):
            value.copy_(torch.tensor(average[name]))
        self.done = max(int(kept["step"]) for kept in states if kept)
        try:
            if "torch" in random:
                torch.set_rng_state(torch.tensor(random["torch"]))
            if "cuda" in random and self.device.type == "cuda":
                torch.cuda.set_rng_state(torch.tensor(random["cuda"]), self.device)
        except (RuntimeError, TypeError) as error:
            raise CheckpointError(f"its state of the random generator is damaged: {error}") from error

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """See :class:`attar.train.steps.Step`."""
        if not self.average:
            yield
            return
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        with torch.no_grad():
            for weight, mean in zip(self.weights, self.average, strict=True):
                kept = weight.clone()
                weight.copy_(mean)
                mean.copy_(kept)
