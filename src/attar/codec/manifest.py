"""``manifest.json`` of a bundle: what the model is, what it takes, and how its latents are shaped."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from types import MappingProxyType
from typing import Any

from attar.errors import BundleError
from attar.plainjson import nearest

__all__ = [
    "FRACTION_BITS",
    "HYPER_LEVELS",
    "HYPER_PASSES",
    "STEP_BITS",
    "WEIGHT_BITS",
    "Entropy",
    "Hyperprior",
    "Latent",
    "LocalSteps",
    "Manifest",
]

FORMAT = 1
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
MAX_SIDE = 1 << 16


@dataclass(frozen=True)
class Latent:
    """Shape of the latent of one image: ``(*spatial, channels)``.

    ``stride``: pixels of the padded image per latent position, each way; the latent is then
    ``(H / stride, W / stride, channels)``. ``None``: the spatial shape is fixed, and is ``shape``
    (empty: the latent is a plain vector of ``channels`` numbers).
    """

    channels: int
    stride: int | None = None
    shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class Entropy:
    """How symbols find their table. ``factorized``: one table for each latent channel."""

    kind: str = "factorized"


@dataclass(frozen=True)
class LocalSteps:
    """Integers that choose a position's step of quantisation: see :mod:`attar.codec.localsteps`.

    ``weights``: of the table index of each latent channel, in units of ``2**-WEIGHT_BITS``. ``gains`` of their sum,
    and ``offsets``: one for each quality; an offset, and a gain times a weight, count ``2**-FRACTION_BITS``.
    ``unit``: natural logarithm of the ratio of two steps, and of two scales.
    """

    weights: tuple[int, ...]
    gains: tuple[int, ...]
    offsets: tuple[int, ...]
    unit: float

    def fits(self, channels: int, qualities: int) -> bool:
        """Whether all is there and in range."""
        members = (self.weights, channels), (self.gains, qualities), (self.offsets, qualities)
        return (
            all(
                isinstance(values, tuple)
                and len(values) == count
                and all(type(value) is int and abs(value) <= 1 << bits for value in values)
                for (values, count), bits in zip(members, STEP_BITS, strict=True)
            )
            and type(self.unit) is float
            and 0 < self.unit <= 1
        )


@dataclass(frozen=True)
class Hyperprior:
    """How symbols find their table, when networks choose it.

    ``channels`` and ``stride``: of the hyper-latent, as in :class:`Latent`. ``hyper_tables``: number of its
    tables, which come first, and of which a network chooses in four passes; 0 for one table for each channel.
    ``scales``: number of the latent's tables, which follow. ``context``: whether the latent is coded in two passes.
    ``steps``: what chooses steps of quantisation, or None where all are 1.
    """

    channels: int
    stride: int
    scales: int
    context: bool
    hyper_tables: int = 0
    steps: LocalSteps | None = None
    kind: str = "hyperprior"

    @property
    def first_scale(self) -> int:
        """The latent's first table."""
        return self.hyper_tables or self.channels


ENTROPY_KINDS: Mapping[str, type] = MappingProxyType({"factorized": Entropy, "hyperprior": Hyperprior})
TILE_PIXELS = 1024
MOST_HYPER_TABLES = 256
HYPER_PASSES = 4
"""Sections of a hyper-latent whose tables a network chooses."""
WEIGHT_BITS, FRACTION_BITS = 20, 32
"""Bits behind the point, of weights and of all else of :class:`LocalSteps`."""
STEP_BITS = 20, 16, 44
"""Of the largest weight, gain and offset, so that no sum leaves 64 bits."""
HYPER_LEVELS = 8
"""Qualities that this network cannot tell apart."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The manifest. A value that no bundle may hold raises :class:`BundleError` with all faults.

    ``channels``: 1 (gray) or 3 (RGB). ``size``: the only ``(height, width)`` taken, or None for any.
    ``multiple``: height and width are padded to a multiple of this. ``qualities``: the range ``(lowest,
    highest)`` of a model of variable rate, or None for a single rate. ``training``: a summary, free scalars
    and strings. ``model``: the model.json document. ``created_by``: versions of the programs that made it.
    """

    name: str
    version: str
    licence: str
    channels: int
    latent: Latent
    description: str = ""
    size: tuple[int, int] | None = None
    multiple: int = 1
    entropy: Entropy | Hyperprior = field(default_factory=Entropy)
    qualities: tuple[int, int] | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    created_by: Mapping[str, str] = field(default_factory=dict)
    format: int = FORMAT

    def __post_init__(self) -> None:
        if faults := self._faults():
            raise BundleError("manifest: " + "; ".join(faults))

    @property
    def accepts(self) -> str:
        """The images that the model takes, in words."""
        colours = "gray" if self.channels == 1 else "RGB or gray"
        return (
            f"{colours}, any size"
            if self.size is None
            else f"{colours}, {self.size[0]} x {self.size[1]} (height x width)"
        )

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width after padding to :attr:`multiple`."""
        return -(-height // self.multiple) * self.multiple, -(-width // self.multiple) * self.multiple

    def latent_shape(self, height: int, width: int) -> tuple[int, ...]:
        """Shape ``(..., channels)`` of the latent of one image of ``height`` x ``width`` pixels."""
        if self.latent.stride is None:
            return (*self.latent.shape, self.latent.channels)
        padded = self.padded_size(height, width)
        return (padded[0] // self.latent.stride, padded[1] // self.latent.stride, self.latent.channels)

    def to_json(self) -> dict[str, Any]:
        """The document that :meth:`from_json` reads."""
        document = asdict(self)
        if document["entropy"].get("steps", 0) is None:  # so that what knows no steps reads it, too
            del document["entropy"]["steps"]
        return document

    @classmethod
    def from_json(cls, document: object, source: str) -> Manifest:
        """Manifest from untrusted JSON; raises :class:`BundleError` with ``source`` and every fault."""
        faults: list[str] = []
        values = _known(cls, document, "", faults)
        given = values.get("entropy")
        kind = given.get("kind", "factorized") if isinstance(given, dict) else "factorized"
        entropy = ENTROPY_KINDS.get(kind, Entropy) if isinstance(kind, str) else Entropy
        for name, part in (("latent", Latent), ("entropy", entropy)):
            if name in values:
                members = _known(part, values[name], f"{name}.", faults)
                if isinstance(steps := members.get("steps"), dict):
                    known = _known(LocalSteps, steps, "entropy.steps.", faults)
                    members["steps"] = _build(LocalSteps, known)
                values[name] = _build(part, members)
        for name in ("size", "qualities"):
            if isinstance(values.get(name), list):
                values[name] = tuple(values[name])
        if not faults:
            try:
                return cls(**values)
            except BundleError as error:
                faults.append(str(error))
        raise BundleError(f"{source}: " + "; ".join(faults))

    def _faults(self) -> list[str]:
        return [
            f"{name} is {_brief(getattr(self, name))}; {expected} expected"
            for name, valid, expected in RULES
            if not valid(self)
        ]

    @property
    def table_count(self) -> int:
        """Number of frequency tables that the bundle has."""
        entropy = self.entropy
        return (
            entropy.first_scale + entropy.scales if isinstance(entropy, Hyperprior) else self.latent.channels
        )

    def _entropy_fits(self) -> bool:
        entropy, stride = self.entropy, self.latent.stride if isinstance(self.latent, Latent) else None
        if not isinstance(entropy, Hyperprior):
            return isinstance(entropy, Entropy) and entropy.kind == "factorized"
        return (
            entropy.kind == "hyperprior"
            and type(entropy.context) is bool
            and self._steps_fit(entropy.steps)
            and _is_int(entropy.channels, 4096)
            and _is_int(entropy.scales, 256)
            and type(entropy.hyper_tables) is int
            and 0 <= entropy.hyper_tables <= MOST_HYPER_TABLES
            and _is_int(entropy.stride, TILE_PIXELS)
            and _is_int(stride, TILE_PIXELS)
            and _is_int(self.multiple, TILE_PIXELS)
            and TILE_PIXELS % entropy.stride == 0
            and self.multiple % entropy.stride == 0
            and entropy.stride % (stride or 1) == 0
        )

    def _steps_fit(self, steps: object) -> bool:
        if not isinstance(steps, LocalSteps) or not isinstance(self.latent, Latent):
            return steps is None
        qualities = self.qualities if self.qualities is not None and _is_range(self.qualities) else (0, 0)
        return steps.fits(self.latent.channels, qualities[1] - qualities[0] + 1)

    def _latent_fits(self) -> bool:
        latent = self.latent
        if not isinstance(latent, Latent) or not _is_int(latent.channels, 4096):
            return False
        if latent.stride is not None:
            return (
                latent.shape == ()
                and _is_int(latent.stride, 1024)
                and _is_int(self.multiple, 1024)
                and self.multiple % latent.stride == 0
            )
        return (
            self.size is not None
            and isinstance(latent.shape, tuple)
            and len(latent.shape) <= 2
            and _is_ints(latent.shape, len(latent.shape), MAX_SIDE)
        )


def _is_int(value: object, most: int) -> bool:
    return type(value) is int and 1 <= value <= most


def _is_ints(value: object, count: int, most: int) -> bool:
    return isinstance(value, tuple) and len(value) == count and all(_is_int(item, most) for item in value)


def _is_range(value: object) -> bool:
    return isinstance(value, tuple) and _is_ints(value, 2, 100) and value[0] <= value[1]


RULES: tuple[tuple[str, Callable[[Manifest], bool], str], ...] = (
    (
        "format",
        lambda m: type(m.format) is int and m.format == FORMAT,
        f"{FORMAT} (a later one needs a later attar)",
    ),
    (
        "name",
        lambda m: isinstance(m.name, str) and NAME.fullmatch(m.name) is not None,
        "letters, digits and ._+-, at most 64",
    ),
    ("version", lambda m: isinstance(m.version, str), "text"),
    ("licence", lambda m: isinstance(m.licence, str), "text"),
    ("description", lambda m: isinstance(m.description, str), "text"),
    ("channels", lambda m: type(m.channels) is int and m.channels in (1, 3), "1 or 3"),
    (
        "size",
        lambda m: m.size is None or _is_ints(m.size, 2, MAX_SIDE),
        f"null or [height, width], each 1 to {MAX_SIDE}",
    ),
    ("multiple", lambda m: _is_int(m.multiple, 1024), "1 to 1024"),
    (
        "latent",
        lambda m: m._latent_fits(),
        "channels 1 to 4096 with a stride that divides multiple, or with a fixed shape of at most 2 numbers "
        "and a fixed size",
    ),
    (
        "entropy",
        lambda m: m._entropy_fits(),
        f"kind {' or '.join(ENTROPY_KINDS)}, the latter with channels 1 to 4096, scales 1 to 256, hyper_tables 0 "
        "to 256, a context that is true or false, a stride between latent.stride and multiple that divides 1024, and "
        "steps, if any, of a weight for each latent channel, a gain and an offset for each quality, and a unit",
    ),
    (
        "qualities",
        lambda m: m.qualities is None or _is_range(m.qualities),
        "null or [lowest, highest] within 1 to 100",
    ),
    ("training", lambda m: isinstance(m.training, Mapping), "an object"),
    ("model", lambda m: isinstance(m.model, Mapping), "an object"),
    ("created_by", lambda m: isinstance(m.created_by, Mapping), "an object"),
)
"""Every member of a manifest, when it is valid, and what to expect of it in words."""


def _known(part: type, document: object, prefix: str, faults: list[str]) -> dict[str, Any]:
    """The members of ``document`` that ``part`` has; unknown and missing ones become faults."""
    if not isinstance(document, dict):
        faults.append(f"{prefix.rstrip('.') or 'the manifest'} is {_brief(document)}; an object expected")
        return {}
    names = {item.name for item in fields(part)}
    for name in document:
        if name not in names:
            near = nearest(name, sorted(names))
            faults.append(
                f"{prefix}{_brief(name)} is unknown" + (f"; did you mean {near!r}?" if near else "")
            )
    required = {item.name for item in fields(part) if _is_required(item)}
    faults.extend(f"{prefix}{name} is missing" for name in sorted(required - set(document)))
    return {name: value for name, value in document.items() if name in names}


def _is_required(item: Any) -> bool:
    return item.default is MISSING and item.default_factory is MISSING


def _build(part: Callable[..., Any], values: dict[str, Any]) -> Any:
    try:
        return part(
            **{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        )
    except TypeError:  # a missing member, which is among the faults already
        return None


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
