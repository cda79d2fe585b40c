"""Adversarial training: a discriminator tells originals from regenerated images, and the network learns to deceive it.

::

    images x --network--> regenerated x' --+--> discriminator --> logits: high for an original
       '-----------------------------------'

    network          weight * distortion(x, x') + adversarial_weight * deceive(D(x')) + rate
    discriminator    detect(D(x), D(x'))                         a step of each, in turns

Goodfellow et al. 2014 (arXiv:1406.2661); for compression Agustsson et al. 2019 (arXiv:1804.02958) and Mentzer
et al. 2020 (HiFiC, arXiv:2006.09965). A discriminator is for training only: it is in no bundle.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from attar import spec as specs
from attar.errors import CheckpointError, SpecError, TrainingError
from attar.train import checkpoint, network
from attar.train.config import TrainConfig
from attar.train.parallel import Team
from attar.train.tensors import to_numpy

BLOCK = "discriminator"
LINEAR = (None, keras.activations.linear)
BETAS = (0.5, 0.9)  # of its Adam: with a longer memory it would fight an opponent that has moved on


def deceive(kind: str, regenerated: Any) -> Any:
    """The network's loss for each image, (B,), of the logits (B, ...) of regenerated images.

    ``hinge``: ``-D`` (Lim and Ye 2017, arXiv:1705.02894). ``non-saturating``: ``-log sigmoid(D)``, whose gradient
    is largest where the discriminator is not deceived (Goodfellow et al. 2014, section 3).
    """
    return _of_each(-regenerated if kind == "hinge" else ops.softplus(-regenerated))


def detect(kind: str, original: Any, regenerated: Any) -> Any:
    """The discriminator's loss for each image, (B,), of the logits (B, ...) of both images.

    ``hinge``: ``max(0, 1 - D(x)) + max(0, 1 + D(x'))``, 2 for one that cannot tell. ``non-saturating``:
    ``-log sigmoid(D(x)) - log(1 - sigmoid(D(x')))``, 2 ln 2 for one that cannot tell. 0 for one that always can.
    """
    if kind == "hinge":
        return _of_each(ops.relu(1.0 - original) + ops.relu(1.0 + regenerated))
    return _of_each(ops.softplus(-original) + ops.softplus(regenerated))


def _of_each(values: Any) -> Any:
    return ops.mean(values, axis=tuple(range(1, len(values.shape))))


def has_one(spec: specs.ModelSpec, config: TrainConfig) -> bool:
    """Whether a run trains with a discriminator: the model.json has one, and it is given a weight."""
    return BLOCK in spec.blocks and config.adversarial_weight > 0


def build(spec: specs.ModelSpec, dtype: str = "float32") -> Any:
    """The discriminator of a model.json as a Keras model: images (B, H, W, C) in 0..1 -> logits (B, 1) or (B, h, w, 1).

    Raises:
        SpecError: with every fault found in its layers, or if it ends in anything but logits.
    """
    with network.policy(dtype):
        image = keras.Input(spec.input_shape, name="judged", dtype="float32")
        made = network.make_layers(spec, (BLOCK,))[BLOCK]
        logits = network.chain(image, made, spec)
        (*_, (last, layer)) = made
        shape = list(logits.shape[1:])
        if len(shape) not in (1, 3) or shape[-1] != 1:
            expected = "one logit, [1], or one for each patch, [h, w, 1]"
            fault = f"{last.path}: the discriminator ends with shape {shape}, expected {expected}"
            raise SpecError(spec.name, [fault])
        if getattr(layer, "activation", None) not in LINEAR:
            fault = f"{last.path}: ends the discriminator with an activation, expected none: a logit has no bounds"
            raise SpecError(spec.name, [fault])
        return keras.Model(image, logits, name="discriminator")


class Adversary:
    """A discriminator in training on PyTorch: its losses, its optimizer, its state.

    Args:
        spec: a model.json with a block ``discriminator``.
        config: kind and weight of the adversarial loss, warm-up, precision, clipping.

    Raises:
        SpecError: for faults of the block.
        TrainingError: on another backend than PyTorch.
    """

    def __init__(self, spec: specs.ModelSpec, config: TrainConfig) -> None:
        if keras.backend.backend() != "torch":
            raise TrainingError(
                f"a discriminator trains on PyTorch only, and KERAS_BACKEND is {keras.backend.backend()}: "
                "unset it, or train without one by --adversarial-weight 0"
            )
        import torch

        self.torch, self.config = torch, config
        self.model = build(spec, "mixed_bfloat16" if config.bf16 else "float32")
        self.variables = network.lasting_names(self.model.variables, spec)
        self.weights = [variable.value for variable in self.model.trainable_variables]
        rest = [variable.value for variable in self.model.non_trainable_variables]
        self.statistics = [value for value in rest if value.is_floating_point()]
        self.optimizer = torch.optim.Adam(self.weights, betas=BETAS, fused=True)

    def deceive(self, regenerated: Any) -> Any:
        """The network's loss for each of the regenerated images (B, H, W, C) in 0..1, (B,)."""
        return deceive(self.config.adversarial, self._logits(regenerated))

    def detect(self, originals: Any, regenerated: Any) -> Any:
        """The discriminator's own loss, a scalar."""
        # In one pass: layers such as SpectralNormalization change their weights at every pass.
        logits = self._logits(ops.concatenate([originals, regenerated]))
        return ops.mean(detect(self.config.adversarial, *ops.split(logits, 2)))

    def _logits(self, images: Any) -> Any:
        return ops.cast(self.model(images, training=True), "float32")

    def learns(self, whether: bool) -> None:
        """Whether gradients of what follows reach the discriminator's weights."""
        for weight in self.weights:
            weight.requires_grad_(whether)

    def descend(self, loss: Any, learning_rate: float, team: Team) -> None:
        """One step of the discriminator down its ``loss``, averaged over the processes of the team."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        gradients = [weight.grad for weight in self.weights if weight.grad is not None]
        team.average([*gradients, *self.statistics])
        if self.config.clip_norm:
            self.torch.nn.utils.clip_grad_norm_(self.weights, self.config.clip_norm)
        self.optimizer.param_groups[0]["lr"] = learning_rate
        self.optimizer.step()

    def state(self, *, optimizer: bool = True) -> dict[str, np.ndarray]:
        """Weights (``discriminator/weights/...``) and ``optimizer`` (``discriminator/optimizer/...``)."""
        arrays = {f"{BLOCK}/weights/{name}": to_numpy(v) for name, v in self.variables.items()}
        for place, weight in enumerate(self.weights if optimizer else ()):
            for key, value in self.optimizer.state.get(weight, {}).items():
                arrays[f"{BLOCK}/optimizer/{place}/{key}"] = to_numpy(value)
        return arrays

    def restore(self, kept: Mapping[str, np.ndarray], source: str, *, optimizer: bool = True) -> None:
        """Take over what :meth:`state` gave, without ``discriminator/``; the weights alone unless ``optimizer``.

        Raises:
            CheckpointError: if it does not fit.
        """
        weights = checkpoint.below(kept, "weights")
        shapes = {name: tuple(variable.shape) for name, variable in self.variables.items()}
        if {name: value.shape for name, value in weights.items()} != shapes:
            raise CheckpointError(f"{source}: holds no discriminator, or another one than the model.json's")
        states = self._moments(checkpoint.below(kept, "optimizer"), source) if optimizer else []
        for name, variable in self.variables.items():
            variable.assign(weights[name])
        for weight, moments in zip(self.weights, states, strict=False):
            self.optimizer.state.pop(weight, None)
            if moments:
                self.optimizer.state[weight] = {
                    key: self.torch.tensor(value, dtype=self.torch.float32, device=weight.device)
                    for key, value in moments.items()
                }

    def _moments(self, kept: Mapping[str, np.ndarray], source: str) -> list[dict[str, np.ndarray]]:
        """Adam's state of each weight; none before the first step, as in the warm-up."""
        found = [checkpoint.below(kept, str(place)) for place in range(len(self.weights))]
        for weight, moments in zip(self.weights, found, strict=True):
            shape = tuple(weight.shape)
            expected = {"step": (), "exp_avg": shape, "exp_avg_sq": shape}
            if kept and {key: value.shape for key, value in moments.items()} != expected:
                raise CheckpointError(
                    f"{source}: the state of the discriminator's optimizer is incomplete or of another shape"
                )
        return found
