"""What the errors of a decoded image cost in bits, and the gradient of that by the latent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attar.codec import gradient
from attar.codec.networks import Networks
from attar.codec.similarity import scales_of
from attar.errors import BundleError

__all__ = ["LOSSES", "Distortion", "Similarity", "SquaredError", "wrong_shape"]

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Distortion:
    """The errors of an image that is decoded at a ``quality``, a level of shape (1,), against ``target``.

    ``target``: (1, H, W, C) in 0..1. ``weight``, of its shape: 1 where errors count, 0 elsewhere. ``price``: bits per
    pixel that a distortion of 1, as training has it, is worth.
    """

    networks: Networks
    quality: Floats
    target: Floats
    weight: Floats
    price: float

    @staticmethod
    def known(networks: Networks) -> bool:
        """Whether its gradient can be followed through the synthesis."""
        raise NotImplementedError

    def slope(self, latent: Floats) -> Floats:
        """Gradient of the cost in bits by a latent (1, h, w, L)."""
        raise NotImplementedError

    def cost(self, latent: Floats) -> float:
        """Bits that the error is worth."""
        raise NotImplementedError

    def _checked(self, image: Floats) -> Floats:
        if image.shape != self.target.shape:
            raise wrong_shape(self.networks, image.shape, self.target.shape)
        return np.nan_to_num(image)


class SquaredError(Distortion):
    """Mean squared error, of levels 0..255."""

    @staticmethod
    def known(networks: Networks) -> bool:
        """See :class:`Distortion`."""
        return networks.can_pull("synthesis", "latent")

    @property
    def worth(self) -> float:
        """Bits for a squared level of one channel."""
        return self.price / int(self.target.shape[3])

    def slope(self, latent: Floats) -> Floats:
        """See :class:`Distortion`."""
        given = {gradient.TARGET: self.target, gradient.WEIGHT: self.weight, "quality": self.quality}
        _, pulled = self.networks.pull("synthesis", "latent", {"latent": latent, **given})
        return np.float32(2 * 255**2 * self.worth) * pulled

    def cost(self, latent: Floats) -> float:
        """See :class:`Distortion`."""
        image = self.networks.run("synthesis", {"latent": latent, "quality": self.quality})
        image = np.rint(255 * np.clip(self._checked(image), 0, 1))
        error = np.square(image - 255 * self.target) * self.weight
        return float(self.worth * error.sum(dtype=np.float64))


class Similarity(Distortion):
    """1 - MS-SSIM, of all pixels; of fewer scales where there is no room for five."""

    @staticmethod
    def known(networks: Networks) -> bool:
        """See :class:`Distortion`."""
        return networks.can_pull("synthesis", "latent", 1)

    def slope(self, latent: Floats) -> Floats:
        """See :class:`Distortion`."""
        return np.float32(-self._worth) * self._pulled(latent)[1]

    def cost(self, latent: Floats) -> float:
        """See :class:`Distortion`."""
        value = float(np.nan_to_num(self._pulled(latent)[2]).sum())
        return self._worth * (1 - value)

    @property
    def _worth(self) -> float:
        height, width = map(int, self.target.shape[1:3])
        return self.price * height * width

    def _pulled(self, latent: Floats) -> tuple[Floats, ...]:
        given = {gradient.TARGET: self.target, gradient.WEIGHT: self.weight, "quality": self.quality}
        scales = scales_of(*self.target.shape[1:3])
        image, *rest = self.networks.pull("synthesis", "latent", {"latent": latent, **given}, scales)
        return self._checked(image), *rest


LOSSES: dict[str, type[Distortion]] = {"mse": SquaredError, "ms-ssim": Similarity}
"""By the name of the loss that a bundle was trained for."""


def wrong_shape(networks: Networks, given: Sequence[int], wanted: Sequence[int]) -> BundleError:
    """The error of a network that does not keep to its shapes."""
    return BundleError(
        f"{networks.bundle.source}: a network gave a result of shape {tuple(given)}; {tuple(wanted)} expected"
    )
