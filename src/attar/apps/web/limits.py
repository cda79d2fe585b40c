"""What a server lets a client do, and how it says no."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits", "Refusal"]


@dataclass(frozen=True)
class Limits:
    """What a server takes.

    ``max_bytes``: of one request's body. ``max_pixels``: of one image, checked before it is decoded.
    ``workers``: requests that are worked on at once. ``queue``: requests that may wait for them. ``held_bytes``:
    of all bodies in memory together. ``body_seconds``: in which a body must have arrived. ``hosts``: names under
    which the server may be addressed, beside those of this machine.
    """

    max_bytes: int = 64 << 20
    max_pixels: int = 1 << 24
    workers: int = 2
    queue: int = 256
    held_bytes: int = 512 << 20
    body_seconds: float = 30.0
    hosts: tuple[str, ...] = ()


class Refusal(Exception):  # noqa: N818 - it is an answer, and not always a fault
    """A request that is not served: its HTTP status, and the sentence that says why and what to do."""

    def __init__(self, status: int, sentence: str) -> None:
        self.status = status
        super().__init__(sentence)
