"""One training step on each Keras backend: forward, gradient, clipping, Adam, running average of the weights.

``make_step(...)`` gives a :class:`Step`; the trainer knows nothing else of the backend. On PyTorch, its own
fused Adam is used, or SOAP: Keras's Adam costs more than forward and backward pass of a small network there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import keras
import numpy as np
from keras import ops

from attar.errors import CheckpointError, TrainingError
from attar.train import losses
from attar.train.network import Forward, Network
from attar.train.parallel import ALONE, Team
from attar.train.tensors import to_numpy

Arrays = Mapping[str, np.ndarray]
METRICS = ("loss", "rate", "psnr", "ssim")
ALL_METRICS = (*METRICS, "adversarial", "discriminator")
"""With a discriminator, also the two players' losses, see :mod:`attar.train.adversarial`."""
BETAS, EPSILON = (0.9, 0.999), 1e-7  # Keras's defaults, so that every backend trains alike


class Step(Protocol):
    """A training step, with its state."""

    def __call__(self, images: np.ndarray, learning_rate: float) -> Any:
        """Images (B, H, W, C) uint8 -> METRICS of the batch before the update, as a tensor (4,).

        With a discriminator ALL_METRICS, (6,). Of a team's step, images are this process's part of the batch.
        """
        ...

    def state(self) -> dict[str, np.ndarray]:
        """The optimizer's state (``optimizer/...``), averaged weights (``average/...``), and the state of random
        generators that are no variables of the network (``random/...``).
        """
        ...

    def restore(self, optimizer: Arrays, average: Arrays, random: Arrays) -> None:
        """Take over the three parts of what :meth:`state` gave. Raises CheckpointError if they do not fit."""
        ...

    def averaged(self) -> AbstractContextManager[None]:
        """A context in which the network holds the averaged weights."""
        ...


def measure(
    network: Network, loss: losses.Loss, images: Any, training: bool, **chosen: Any
) -> tuple[Any, Any]:
    """One pass: images (B, H, W, C) uint8 -> (loss to differentiate, the four METRICS as a tensor (4,)).

    ``chosen`` goes to the network: a ``quality`` (0..1), or what its ``draw`` gave.
    """
    value, metrics, _ = run(network, loss, images, training, **chosen)
    return value, metrics


def run(
    network: Network, loss: losses.Loss, images: Any, training: bool, **chosen: Any
) -> tuple[Any, Any, Forward]:
    """As :func:`measure`, and what the pass gave."""
    forward = network(images, training=training, **chosen)
    target = ops.cast(images, "float32") / 255.0
    value, rate = loss(target, forward.regenerated, forward.bits, forward.lambdas)
    regenerated = ops.stop_gradient(forward.regenerated)
    psnr = ops.mean(losses.psnr(target, regenerated))
    ssim = ops.mean(losses.ssim(target, regenerated))
    return value, ops.stop_gradient(ops.stack([value, rate, psnr, ssim])), forward


def make_step(
    network: Network,
    loss: losses.Loss,
    *,
    clip_norm: float | None = 1.0,
    average: float = 0.0,
    compiled: bool = False,
    optimizer: str = "adam",
    adversary: Any = None,
    team: Team = ALONE,
    micro_batch: int | None = None,
) -> Step:
    """The training step for the Keras backend in use.

    Args:
        network: what is trained, in place.
        loss: what is minimised.
        clip_norm: largest norm of the whole gradient; None clips nothing.
        average: momentum of the running average of the weights (0.999, say); 0 keeps none.
        compiled: compile the step (``torch.compile``, XLA).
        optimizer: ``adam``, or on PyTorch ``soap`` (:mod:`attar.train.soap`).
        adversary: the :class:`attar.train.adversarial.Adversary` trained beside the network, on PyTorch.
        team: the processes that share every batch, on PyTorch.
        micro_batch: images of a process whose gradients are found at once, on PyTorch; None: all of a step's.

    Raises:
        TrainingError: for what another backend, or an adversary, does not have.
    """
    backend = keras.backend.backend()
    if backend == "torch":
        from attar.train.adversarialstep import AdversarialStep
        from attar.train.torchstep import TorchStep

        arguments = (network, loss, clip_norm, average, compiled, optimizer, team)
        if adversary is None:
            return TorchStep(*arguments, micro_batch)
        if micro_batch is not None:
            raise TrainingError("a discriminator sees whole batches: micro_batch cannot be used with it")
        return AdversarialStep(adversary, *arguments)
    if micro_batch is not None:
        raise TrainingError(f"micro_batch is for PyTorch only, and Keras runs on {backend}")
    if optimizer != "adam":
        raise TrainingError(f"the optimizer {optimizer} runs on PyTorch only: set KERAS_BACKEND=torch")
    backends: dict[str, Callable[..., Step]] = {"tensorflow": _TensorFlowStep, "jax": _JaxStep}
    return backends[backend](network, loss, clip_norm, average, compiled)


def trained_variables(network: Network) -> dict[str, Any]:
    """What is trained, by its lasting name, in the order of ``network.trainable_variables``."""
    names = {id(variable): name for name, variable in network.named_variables().items()}
    return {names[id(variable)]: variable for variable in network.trainable_variables}


def momentum_after(most: float, done: int) -> float:
    """The average's momentum after ``done`` steps: less at first, as the first weights are random."""
    return min(most, (1 + done) / (10 + done))


def check_average(names: Sequence[str], shapes: Sequence[Any], average: Mapping[str, np.ndarray]) -> None:
    """Refuse a running average that is not one of these weights. Raises CheckpointError."""
    for name, shape in zip(names, shapes, strict=True):
        if name not in average or average[name].shape != tuple(shape):
            raise CheckpointError(f"it holds no running average of {name}")


class _KerasStep:
    """What TensorFlow and JAX share: Keras's Adam, whose variables are the state."""

    def __init__(
        self, network: Network, loss: losses.Loss, clip_norm: float | None, average: float, compiled: bool
    ) -> None:
        self.network, self.loss, self.momentum, self.compiled = network, loss, average, compiled
        self.optimizer = keras.optimizers.Adam(
            1e-3, *BETAS, epsilon=EPSILON, global_clipnorm=clip_norm, name="adam"
        )
        self.optimizer.build(network.trainable_variables)
        self.names, self.average = list(trained_variables(network)), self._weights() if average else []

    def __call__(self, images: np.ndarray, learning_rate: float) -> Any:
        self.optimizer.learning_rate = learning_rate
        metrics = self._step(images)
        if self.average:
            share = 1.0 - momentum_after(self.momentum, int(self.optimizer.iterations))
            self.average = [a + share * (w - a) for a, w in zip(self.average, self._weights(), strict=True)]
        return metrics

    def _step(self, images: np.ndarray) -> Any:
        raise NotImplementedError

    def _weights(self) -> list[Any]:
        return [ops.copy(variable.value) for variable in self.network.trainable_variables]

    def state(self) -> dict[str, np.ndarray]:
        # By position: the names that Keras gives these variables count the layers of the process.
        arrays = {f"optimizer/{place}": to_numpy(v) for place, v in enumerate(self.optimizer.variables)}
        for name, value in zip(self.names, self.average, strict=False):
            arrays[f"average/{name}"] = to_numpy(value)
        return arrays

    def restore(self, optimizer: Arrays, average: Arrays, random: Arrays) -> None:
        expected = {str(place): tuple(v.shape) for place, v in enumerate(self.optimizer.variables)}
        if {name: value.shape for name, value in optimizer.items()} != expected:
            raise CheckpointError("it holds no state of Keras's optimizer for this model")
        if self.average:
            check_average(self.names, [value.shape for value in self.average], average)
            self.average = [ops.convert_to_tensor(average[name], "float32") for name in self.names]
        for place, variable in enumerate(self.optimizer.variables):
            variable.assign(optimizer[str(place)])

    @contextmanager
    def averaged(self) -> Iterator[None]:
        if not self.average:
            yield
            return
        kept = self._weights()
        self._put(self.average)
        try:
            yield
        finally:
            self._put(kept)

    def _put(self, values: Sequence[Any]) -> None:
        for variable, value in zip(self.network.trainable_variables, values, strict=True):
            variable.assign(value)


class _TensorFlowStep(_KerasStep):
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

    def _step(self, images: np.ndarray) -> Any:
        return self.step(images)


class _JaxStep(_KerasStep):
    """A jitted pure function over the network's and the optimizer's variables."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        import jax

        def loss_of(trainable: Any, rest: Any, images: Any) -> Any:
            mapping = zip(
                [*self.network.trainable_variables, *self.network.non_trainable_variables],
                [*trainable, *rest],
                strict=True,
            )
            with keras.StatelessScope(state_mapping=list(mapping)) as scope:
                value, metrics = measure(self.network, self.loss, images, training=True)
            return value, (
                metrics,
                [scope.get_current_value(v) for v in self.network.non_trainable_variables],
            )

        def step(trainable: Any, rest: Any, state: Any, images: Any) -> Any:
            (_, (metrics, rest)), gradients = jax.value_and_grad(loss_of, has_aux=True)(
                trainable, rest, images
            )
            trainable, state = self.optimizer.stateless_apply(state, gradients, trainable)
            return metrics, trainable, rest, state

        self.step = jax.jit(step)

    def _step(self, images: np.ndarray) -> Any:
        groups = (
            self.network.trainable_variables,
            self.network.non_trainable_variables,
            self.optimizer.variables,
        )
        metrics, *updated = self.step(*([v.value for v in group] for group in groups), images)
        for group, values in zip(groups, updated, strict=True):
            for variable, value in zip(group, values, strict=True):
                variable.assign(value)
        return metrics
