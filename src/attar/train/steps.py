"""One training step on each Keras backend: forward, gradient, clipping, Adam, running average of the weights.

``make_step(...)`` gives a :class:`Step`; the trainer knows nothing else of the backend. PyTorch's fused Adam is used on
PyTorch, because Keras's own costs more than the whole forward and backward pass of a small network there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import keras
import numpy as np
from keras import ops

from attar.errors import CheckpointError
from attar.train import losses
from attar.train.network import Network

METRICS = ("loss", "rate", "psnr", "ssim")
BETAS, EPSILON = (0.9, 0.999), 1e-7  # Keras's defaults, so that every backend trains alike


class Step(Protocol):
    """A training step, with its state."""

    def __call__(self, images: np.ndarray, learning_rate: float) -> Any:
        """Images (B, H, W, C) uint8 -> the four METRICS of the batch, before the update, as one tensor (4,)."""

    def state(self) -> dict[str, np.ndarray]:
        """The optimizer's state (``optimizer/...``) and the averaged weights (``average/...``)."""

    def restore(self, optimizer: Mapping[str, np.ndarray], average: Mapping[str, np.ndarray]) -> None:
        """Take over what :meth:`state` gave. Raises CheckpointError if it does not fit."""

    def averaged(self) -> Any:
        """A context in which the network holds the averaged weights."""


def measure(network: Network, loss: losses.Loss, images: Any, training: bool) -> tuple[Any, Any]:
    """One pass: images (B, H, W, C) uint8 -> (loss to differentiate, the four METRICS as a tensor (4,))."""
    forward = network(images, training=training)
    target = ops.cast(images, "float32") / 255.0
    value, rate = loss(target, forward.regenerated, forward.bits)
    regenerated = ops.stop_gradient(forward.regenerated)
    psnr = ops.mean(losses.psnr(target, regenerated))
    ssim = ops.mean(losses.ssim(target, regenerated))
    return value, ops.stop_gradient(ops.stack([value, rate, psnr, ssim]))


def make_step(
    network: Network, loss: losses.Loss, *, clip_norm: float | None = 1.0, average: float = 0.0, compiled: bool = False
) -> Step:
    """The training step for the Keras backend in use.

    Args:
        network: what is trained, in place.
        loss: what is minimised.
        clip_norm: largest norm of the whole gradient; None clips nothing.
        average: momentum of the running average of the weights (0.999, say); 0 keeps none.
        compiled: compile the step (``torch.compile``, XLA).
    """
    backends: dict[str, Callable[..., Step]] = {"torch": TorchStep, "tensorflow": TensorFlowStep, "jax": JaxStep}
    return backends[keras.backend.backend()](network, loss, clip_norm, average, compiled)


class TorchStep:
    """Eager or compiled PyTorch, on the CPU or on the GPU that Keras chose."""

    def __init__(
        self, network: Network, loss: losses.Loss, clip_norm: float | None, average: float, compiled: bool
    ) -> None:
        import torch

        self.torch, self.clip_norm, self.momentum = torch, clip_norm, average
        self.variables = list(network.trainable_variables)
        self.weights = [v.value for v in self.variables]
        self.device = self.weights[0].device
        self.optimizer = torch.optim.Adam(self.weights, betas=BETAS, eps=EPSILON, fused=True)
        self.average = [w.detach().clone() for w in self.weights] if average else []

        def forward(images: Any) -> tuple[Any, Any]:
            return measure(network, loss, images, training=True)

        self.forward = torch.compile(forward) if compiled else forward

    def __call__(self, images: np.ndarray, learning_rate: float) -> Any:
        batch = self.torch.from_numpy(images).to(self.device, non_blocking=True)
        value, metrics = self.forward(batch)
        self.optimizer.zero_grad(set_to_none=True)
        value.backward()
        if self.clip_norm is not None:
            self.torch.nn.utils.clip_grad_norm_(self.weights, self.clip_norm)
        self.optimizer.param_groups[0]["lr"] = learning_rate
        self.optimizer.step()
        if self.average:
            with self.torch.no_grad():
                self.torch._foreach_lerp_(self.average, self.weights, 1.0 - self._momentum_now())
        return metrics

    def _momentum_now(self) -> float:
        """The average's momentum, less at first, so that the random first weights are soon forgotten."""
        done = float(self.optimizer.state[self.weights[0]]["step"])
        return min(self.momentum, (1 + done) / (10 + done))

    def state(self) -> dict[str, np.ndarray]:
        arrays = {}
        for variable, weight in zip(self.variables, self.weights, strict=True):
            for key, value in self.optimizer.state.get(weight, {}).items():
                arrays[f"optimizer/{variable.path}/{key}"] = value.detach().cpu().numpy()
        for variable, value in zip(self.variables, self.average, strict=False):
            arrays[f"average/{variable.path}"] = value.cpu().numpy()
        return arrays

    def restore(self, optimizer: Mapping[str, np.ndarray], average: Mapping[str, np.ndarray]) -> None:
        torch = self.torch
        for variable, weight in zip(self.variables, self.weights, strict=True):
            kept = {key: optimizer.get(f"{variable.path}/{key}") for key in ("step", "exp_avg", "exp_avg_sq")}
            if any(value is None for value in kept.values()):
                raise CheckpointError(f"the optimizer's state has nothing for {variable.path}")
            self.optimizer.state[weight] = {
                key: torch.tensor(value, device=self.device if key != "step" or self.device.type != "cpu" else "cpu")
                for key, value in kept.items()
            }
        for variable, value in zip(self.variables, self.average, strict=False):
            with torch.no_grad():
                value.copy_(torch.tensor(average.get(variable.path, variable.numpy())))

    @contextmanager
    def averaged(self) -> Iterator[None]:
        if not self.average:
            yield
            return
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        with self.torch.no_grad():
            for weight, mean in zip(self.weights, self.average, strict=True):
                kept = weight.clone()
                weight.copy_(mean)
                mean.copy_(kept)


class _KerasStep:
    """What TensorFlow and JAX share: Keras's Adam, whose variables are the state."""

    def __init__(
        self, network: Network, loss: losses.Loss, clip_norm: float | None, average: float, compiled: bool
    ) -> None:
        self.network, self.loss, self.compiled = network, loss, compiled
        ema = {"use_ema": True, "ema_momentum": average} if average else {}
        self.optimizer = keras.optimizers.Adam(
            1e-3, *BETAS, epsilon=EPSILON, global_clipnorm=clip_norm, name="adam", **ema
        )
        self.optimizer.build(network.trainable_variables)

    def state(self) -> dict[str, np.ndarray]:
        return {f"optimizer/{v.path}": np.asarray(ops.convert_to_numpy(v)) for v in self.optimizer.variables}

    def restore(self, optimizer: Mapping[str, np.ndarray], average: Mapping[str, np.ndarray]) -> None:  # noqa: ARG002
        for variable in self.optimizer.variables:
            value = optimizer.get(variable.path)
            if value is None or value.shape != tuple(variable.shape):
                raise CheckpointError(f"the optimizer's state has nothing for {variable.path}")
            variable.assign(value)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        if not self.optimizer.use_ema:
            yield
            return
        kept = [ops.convert_to_numpy(v) for v in self.network.trainable_variables]
        self.optimizer.finalize_variable_values(self.network.trainable_variables)
        try:
            yield
        finally:
            for variable, value in zip(self.network.trainable_variables, kept, strict=True):
                variable.assign(value)


class TensorFlowStep(_KerasStep):
    """A ``tf.function`` around a gradient tape."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        import tensorflow as tf

        def step(images: Any) -> Any:
            with tf.GradientTape() as tape:
                value, metrics = measure(self.network, self.loss, images, training=True)
            weights = self.network.trainable_variables
            self.optimizer.apply(tape.gradient(value, [w.value for w in weights]), weights)
            return metrics

        self.step = tf.function(step, jit_compile=True if self.compiled else None)

    def __call__(self, images: np.ndarray, learning_rate: float) -> Any:
        self.optimizer.learning_rate = learning_rate
        return self.step(images)


class JaxStep(_KerasStep):
    """A jitted pure function over the network's and the optimizer's variables."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        import jax

        def loss_of(trainable: Any, rest: Any, images: Any) -> Any:
            mapping = zip(
                [*self.network.trainable_variables, *self.network.non_trainable_variables], [*trainable, *rest], strict=True
            )
            with keras.StatelessScope(state_mapping=list(mapping)) as scope:
                value, metrics = measure(self.network, self.loss, images, training=True)
            return value, (metrics, [scope.get_current_value(v) for v in self.network.non_trainable_variables])

        def step(trainable: Any, rest: Any, state: Any, images: Any) -> Any:
            (_, (metrics, rest)), gradients = jax.value_and_grad(loss_of, has_aux=True)(trainable, rest, images)
            trainable, state = self.optimizer.stateless_apply(state, gradients, trainable)
            return metrics, trainable, rest, state

        self.step = jax.jit(step)

    def __call__(self, images: np.ndarray, learning_rate: float) -> Any:
        self.optimizer.learning_rate = learning_rate
        groups = (self.network.trainable_variables, self.network.non_trainable_variables, self.optimizer.variables)
        metrics, *updated = self.step(*([v.value for v in group] for group in groups), images)
        for group, values in zip(groups, updated, strict=True):
            for variable, value in zip(group, values, strict=True):
                variable.assign(value)
        return metrics
