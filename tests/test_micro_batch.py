"""--micro-batch: the gradient of a step in parts."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from attar.errors import TrainingError
from attar.train import losses, steps
from training_kit import build, dense, digits, numpy

IMAGES = digits(32)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="the option is PyTorch's")
@pytest.mark.parametrize("micro_batch", [8, 12, 32, 100])
def test_a_step_in_parts_is_the_same_step(micro_batch: int) -> None:
    nets = [build(dense(), seed=1) for _ in range(2)]
    whole, parted = (
        steps.make_step(net, losses.Loss(), average=0.9, micro_batch=size)
        for net, size in zip(nets, (None, micro_batch), strict=True)
    )
    for _ in range(3):
        np.testing.assert_allclose(numpy(parted(IMAGES, 1e-3)), numpy(whole(IMAGES, 1e-3)), rtol=1e-4)
    expected, found = (net.named_variables() for net in nets)
    for name, value in expected.items():
        np.testing.assert_allclose(numpy(found[name]), numpy(value), atol=1e-5)


def test_a_discriminator_sees_whole_batches() -> None:
    with pytest.raises(TrainingError, match="micro_batch cannot be used"):
        steps.make_step(build(dense()), losses.Loss(), adversary=object(), micro_batch=2)
