"""The training step of a network and its discriminator, in turns, on PyTorch."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import torch
from keras import ops

from attar.train import steps
from attar.train.adversarial import Adversary
from attar.train.torchstep import TorchStep


class AdversarialStep(TorchStep):
    """A step of the network, then one of the discriminator on the same originals and regenerated images.

    Through the warm-up the discriminator only looks on: neither it nor its judgement is learnt from. The metrics
    are those of every step and the two of :data:`attar.train.adversarial.METRICS`; ``loss`` is without the
    adversarial term, as in validation.
    """

    def __init__(self, adversary: Adversary, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.adversary, config = adversary, adversary.config
        self.warmup, self.weight = config.adversarial_warmup, config.adversarial_weight

    def measure(self, images: Any, drawn: dict[str, Any]) -> tuple[Any, Any]:
        """As :meth:`TorchStep.measure`; the loss is that without the adversarial term, that term, and both images."""
        value, metrics, forward = steps.run(self.network, self.loss, images, training=True, **drawn)
        each = self.adversary.deceive(forward.regenerated)
        # Part of each image's distortion, and weighted as that is where one network serves a range of rates.
        term = each if forward.lambdas is None else each * ops.sqrt(forward.lambdas)
        metrics = ops.concatenate([metrics, ops.stop_gradient(ops.mean(each, keepdims=True))])
        original = ops.cast(images, "float32") / 255.0
        return (value, ops.mean(term), original, ops.stop_gradient(forward.regenerated)), metrics

    def __call__(self, images: np.ndarray, learning_rate: float) -> Any:
        """See :class:`attar.train.steps.Step`."""
        joins = self.done >= self.warmup
        self.adversary.learns(False)
        (value, term, *both), metrics = self.forward(*self.prepare(images))
        self.descend(value + self.weight * term if joins else value, metrics, learning_rate)
        self.adversary.learns(True)
        # Never compiled: the layers that it shares with the pass above would be, for each of their two uses.
        with contextlib.nullcontext() if joins else torch.no_grad():
            found = self.adversary.detect(*both)
        metrics = torch.cat([metrics, found.detach().reshape(1)])
        if joins:
            self.adversary.descend(found, learning_rate, self.team)
        self.team.average([metrics[-1:]])
        return metrics
