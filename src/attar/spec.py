"""``model.json`` <-> :class:`ModelSpec`: reads, checks and reports every fault of the file at once.

The file names Keras layers; this module does not know Keras. What layers exist and what arguments they
take is handed in as a :class:`Catalogue` (``attar.train.catalogue`` makes the live one); without one, only
the structure is checked. The file may come from anybody: sizes, depth and numbers are bounded first, and
layers that carry code are refused by name.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from attar import plainjson
from attar.errors import SpecError
from attar.plainjson import MAX_WORD, Faults, join, listed, nearest, show

__all__ = [
    "BLOCKS",
    "FORBIDDEN_LAYERS",
    "LATENT_LAYER",
    "Catalogue",
    "LayerInfo",
    "LayerSpec",
    "ModelSpec",
    "load",
    "loads",
    "parse",
]

LATENT_LAYER = "compressed_representation"
REQUIRED_BLOCKS = ("encoder", "decoder")
OPTIONAL_BLOCKS = (
    "hyper_encoder",
    "hyper_decoder",
    "hyper_prior",
    "hyper_scales",
    "context",
    "context_scales",
    "discriminator",
)
BLOCKS = REQUIRED_BLOCKS + OPTIONAL_BLOCKS
# Keras layers whose arguments hold code or the path of a program: a model.json is only data.
FORBIDDEN_LAYERS = ("Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer")
INPUT_DTYPES = ("uint8", "float32")

MAX_INPUT_VALUES = 1 << 28


@dataclass(frozen=True)
class LayerInfo:
    """What a layer accepts: its argument names (``name`` is always accepted) and those it needs."""

    arguments: frozenset[str]
    required: frozenset[str] = frozenset()
    description: str = ""


@dataclass(frozen=True)
class Catalogue:
    """The layers that a model.json may use, by the name written in the file."""

    layers: Mapping[str, LayerInfo]


@dataclass(frozen=True)
class LayerSpec:
    """One layer: ``kind`` with ``arguments`` (as in the file, without ``name``).

    ``name`` is unique in the model; ``path`` is the JSON path of the layer, for messages.
    """

    kind: str
    arguments: Mapping[str, Any]
    name: str
    path: str


@dataclass(frozen=True)
class ModelSpec:
    """A model.json that was read and found sound. Make one with :func:`load` or :func:`parse`."""

    name: str
    input_shape: tuple[int | None, int | None, int]
    """Height, width, channels; None for a height or width that may be any (fully convolutional)."""
    input_name: str
    blocks: Mapping[str, tuple[LayerSpec, ...]]
    """The layers of ``encoder`` and ``decoder``, and of those of the optional blocks that the file has."""
    block_names: Mapping[str, str]
    entropy: Mapping[str, Any]
    """The file's ``entropy`` object, empty when there is none."""
    document: Mapping[str, Any]
    """The JSON as read."""

    @property
    def latent_layer(self) -> LayerSpec:
        """The encoder's layer ``compressed_representation``, whose output is quantised and coded."""
        for layer in self.blocks["encoder"]:
            if layer.name == LATENT_LAYER:
                return layer
        raise SpecError(self.name, [f"the encoder has no layer named {LATENT_LAYER}"])

    @property
    def latent_dims(self) -> int | None:
        """Units (or filters) of the latent layer, None as long as nobody has chosen them."""
        layer = self.latent_layer
        dims = layer.arguments.get(_size_argument(layer) or "")
        return dims if isinstance(dims, int) else None

    def with_latent_dims(self, n: int) -> ModelSpec:
        """The same model whose latent layer has ``n`` units (Dense) or filters (convolution).

        Raises SpecError when ``n`` is not a positive integer or the layer has no such argument.
        """
        layer = self.latent_layer
        if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= MAX_INPUT_VALUES:
            raise SpecError(self.name, [f"--latent-dims is {show(n)}; expected an integer of at least 1"])
        argument = _size_argument(layer)
        if argument is None:
            raise SpecError(
                self.name,
                [
                    f"{layer.path}: --latent-dims cannot size a {layer.kind}; expected {LATENT_LAYER} to be"
                    " a layer with units (Dense) or filters (Conv2D)"
                ],
            )
        document: Any = copy.deepcopy(dict(self.document))
        layers = document["model"]["layers"]["generator"]["layers"]["encoder"]["layers"]
        layers[self.blocks["encoder"].index(layer)][layer.kind][argument] = n
        return parse(document, self.name)

    def digest(self) -> str:
        """Hex SHA-256 of what makes the architecture: input shape, blocks (with layer names), entropy."""
        blocks = {
            block: [[layer.kind, layer.name, layer.arguments] for layer in layers]
            for block, layers in self.blocks.items()
        }
        content = {"input": self.input_shape, "blocks": blocks, "entropy": self.entropy}
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode("ascii")).hexdigest()

    def to_json(self) -> str:
        """The document as JSON text, ASCII only; :func:`loads` reads it back to an equal model."""
        return json.dumps(self.document, indent=2, allow_nan=False) + "\n"


def load(path: str | os.PathLike[str], catalogue: Catalogue | None = None) -> ModelSpec:
    """Read a model.json. Raises SpecError, with every fault found, when it cannot be built."""
    source = os.fspath(path)
    try:
        text = plainjson.read(path)
    except plainjson.NotPlainError as error:
        raise SpecError(source, [str(error)]) from error
    return loads(text, source, catalogue)


def loads(text: str, source: str = "model.json", catalogue: Catalogue | None = None) -> ModelSpec:
    """Read the text of a model.json; ``source`` is the name used in messages. Raises SpecError."""
    try:
        document, faults = plainjson.decode(text)
    except plainjson.NotPlainError as error:
        raise SpecError(source, [str(error)]) from error
    return _read(document, source, catalogue, faults)


def parse(document: object, source: str = "model.json", catalogue: Catalogue | None = None) -> ModelSpec:
    """Check a document that was already decoded from JSON. Raises SpecError with every fault found."""
    try:
        faults = plainjson.check(document)
    except plainjson.NotPlainError as error:
        raise SpecError(source, [str(error)]) from error
    return _read(document, source, catalogue, faults)


def _read(document: Any, source: str, catalogue: Catalogue | None, faults: Faults) -> ModelSpec:
    spec = _Reader(catalogue, faults).model(copy.deepcopy(document))
    if faults:
        raise SpecError(source, [*faults])
    return spec


class _Reader(plainjson.Reader):
    """Makes a ModelSpec of a document; what is missing or wrong is reported and read as empty."""

    def __init__(self, catalogue: Catalogue | None, faults: Faults) -> None:
        super().__init__(faults)
        self.catalogue = catalogue
        self.taken: dict[str, str] = {}  # layer name -> the path that has it

    def model(self, document: Any) -> ModelSpec:
        top = self.record(document, "", ("model",), ("entropy", "$schema"))
        model = self.child(top, "model", "", ("layers",), ("name", "entropy"))
        name = self.text(model, "name", "model", "model")
        path = "model.layers"
        layers = self.child(model, "layers", "model", ("inputs", "generator"), ("discriminator",))
        shape, input_name = (
            self.inputs(layers["inputs"]) if "inputs" in layers else ((None, None, 1), "input")
        )
        found = self.blocks(layers, path)
        blocks, names = {}, {}
        for block in BLOCKS:
            if block in found:
                where, value = found[block]
                names[block], blocks[block] = self.block(value, where, block)
        self.latent(blocks, found)
        entropy = self.entropy(top, model)
        return ModelSpec(name, shape, input_name, blocks, names, entropy, document)

    def entropy(self, top: Mapping[str, Any], model: Mapping[str, Any]) -> Mapping[str, Any]:
        if "entropy" in top and "entropy" in model:
            self.fault("model.entropy", "entropy is also given at the top level", "it in one place")
        entropy = top.get("entropy", model.get("entropy", {}))
        if isinstance(entropy, dict):
            return entropy
        self.fault("entropy" if "entropy" in top else "model.entropy", f"found {show(entropy)}", "an object")
        return {}

    def inputs(self, value: Any) -> tuple[tuple[int | None, int | None, int], str]:
        path, fallback = "model.layers.inputs", ((None, None, 1), "input")
        if not isinstance(value, list) or len(value) != 1:
            self.fault(path, f"found {show(value)}", 'a list of exactly one {"Input": {"shape": [H, W, C]}}')
            return fallback
        path += "[0]"
        outer = self.record(value[0], path, ("Input",), ())
        record = self.child(outer, "Input", path, ("shape",), ("name", "dtype"))
        path += ".Input"
        dtype = record.get("dtype")
        if dtype is not None and dtype not in INPUT_DTYPES:
            word, expected = dtype if isinstance(dtype, str) else "", f"one of {listed(INPUT_DTYPES)}"
            self.fault(f"{path}.dtype", f"found {show(dtype)}", expected, word, INPUT_DTYPES)
        name = self.text(record, "name", path, "input")
        self.taken[name] = path
        return self.shape(record["shape"], f"{path}.shape") if "shape" in record else fallback[0], name

    def shape(self, value: Any, path: str) -> tuple[int | None, int | None, int]:
        def sized(size: Any) -> bool:
            return isinstance(size, int) and not isinstance(size, bool) and size >= 1

        expected = "[height, width, channels]: positive integers, null for a height or width that may vary"
        if not isinstance(value, list) or len(value) != 3:
            self.fault(path, f"found {show(value)}", expected)
        elif not (sized(value[2]) and all(size is None or sized(size) for size in value[:2])):
            self.fault(path, f"found [{', '.join(map(show, value))}]", expected)
        elif math.prod(size or 1 for size in value) > MAX_INPUT_VALUES:
            self.fault(path, f"found {value}", f"at most {MAX_INPUT_VALUES} values in an image")
        else:
            return value[0], value[1], value[2]
        return None, None, 1

    def blocks(self, layers: Mapping[str, Any], path: str) -> dict[str, tuple[str, Any]]:
        """Each block's path and value, wherever the file has it."""
        where = f"{path}.generator"
        generator = self.child(layers, "generator", path, ("layers",), ("name",))
        self.text(generator, "name", where, "generator")
        inner = self.child(generator, "layers", where, REQUIRED_BLOCKS, OPTIONAL_BLOCKS)
        found = {block: (f"{where}.layers.{block}", value) for block, value in inner.items()}
        if "discriminator" in layers:
            if "discriminator" in found:
                self.fault(
                    f"{path}.discriminator", "the generator has a discriminator too", "one discriminator"
                )
            found["discriminator"] = (f"{path}.discriminator", layers["discriminator"])
        return found

    def block(self, value: Any, path: str, block: str) -> tuple[str, tuple[LayerSpec, ...]]:
        record = self.record(value, path, ("layers",), ("name",))
        name = self.text(record, "name", path, block)
        if "layers" not in record:
            return name, ()
        layers = record["layers"]
        if not isinstance(layers, list) or not layers:
            self.fault(
                f"{path}.layers", f"found {show(layers)}", 'a list of at least one {"<layer>": {arguments}}'
            )
            return name, ()
        read = [self.layer(layer, f"{path}.layers[{i}]", block, i) for i, layer in enumerate(layers)]
        return name, tuple(layer for layer in read if layer is not None)

    def layer(self, value: Any, path: str, block: str, position: int) -> LayerSpec | None:
        if not isinstance(value, dict) or len(value) != 1:
            several = isinstance(value, dict) and value
            found = f"an object with the keys {listed(value)}" if several else show(value)
            self.fault(path, f"found {found}", 'exactly one layer, {"<layer>": {arguments}}')
            return None
        ((kind, arguments),) = value.items()
        path = join(path, kind)
        known = self.kind(kind, path)
        if not isinstance(arguments, dict):
            self.fault(path, f"found {show(arguments)}", "an object of arguments, {} for none")
            return None
        name = self.text(arguments, "name", path, f"{block}_{position}_{kind.lower()}"[:MAX_WORD])
        if name in self.taken:
            self.fault(
                f"{path}.name", f"{show(name)} is already the name of {self.taken[name]}", "a unique name"
            )
        self.taken.setdefault(name, path)
        layer = LayerSpec(kind, {key: arguments[key] for key in arguments if key != "name"}, name, path)
        if known is not None:
            self.arguments(layer, known)
        for where, nested in plainjson.objects(layer.arguments, path, "class_name"):
            self.nested(nested, where)
        return layer

    def kind(self, kind: str, path: str) -> LayerInfo | None:
        """What the catalogue knows of this layer, None when that cannot or need not be checked."""
        if kind in FORBIDDEN_LAYERS:
            self.fault(path, f"{kind} carries code, which a model.json must not", "a layer that is only data")
        elif self.catalogue is not None and kind not in self.catalogue.layers:
            known = self.catalogue.layers
            self.fault(path, "unknown layer", "the name of an attar.train or keras.layers layer", kind, known)
        elif not kind.isidentifier() or kind.startswith("_"):
            self.fault(path, "not the name of a layer", 'a name such as "Conv2D"')
        elif self.catalogue is not None:
            return self.catalogue.layers[kind]
        return None

    def arguments(self, layer: LayerSpec, info: LayerInfo) -> None:
        known = sorted(info.arguments | {"name"})
        for argument in layer.arguments:
            if argument not in known:
                expected = f"an argument of {layer.kind}: {listed(known)}"
                self.fault(join(layer.path, argument), "unknown argument", expected, argument, known)
        missing = info.required - set(layer.arguments)
        if layer.name == LATENT_LAYER:
            missing -= {_size_argument(layer)}
        for argument in sorted(missing):
            self.fault(layer.path, f"the argument {argument} is missing", f"it, as {layer.kind} needs it")

    def nested(self, value: Mapping[str, Any], path: str) -> None:
        """A Keras object written out inside an argument (an initializer, a wrapped layer): no code either."""
        kind, module = value.get("class_name"), value.get("module")
        if not isinstance(kind, str) or not kind.isidentifier() or kind.startswith("_") or kind == "function":
            self.fault(f"{path}.class_name", f"found {show(kind)}", "the name of a Keras class")
        elif kind in FORBIDDEN_LAYERS:
            self.fault(path, f"{kind} carries code, which a model.json must not", "a class that is only data")
        if module is not None and not (isinstance(module, str) and f"{module}.".startswith("keras.")):
            self.fault(f"{path}.module", f"found {show(module)}", "a module of keras, or none")

    def latent(
        self, blocks: Mapping[str, tuple[LayerSpec, ...]], found: Mapping[str, tuple[str, Any]]
    ) -> None:
        names = [layer.name for layer in blocks.get("encoder", ())]
        if names and LATENT_LAYER not in names:
            where = self.taken.get(LATENT_LAYER)
            missing = f"no layer is named {LATENT_LAYER}"
            if where is not None:
                missing = f"{LATENT_LAYER} is not in the encoder but at {where}"
            near = nearest(LATENT_LAYER, names)
            expected = f'the layer whose output is coded to have "name": "{LATENT_LAYER}"'
            hint = f" (did you mean {show(near)} to be it?)" if near else ""
            self.fault(f"{found['encoder'][0]}.layers", missing, expected + hint)


def _size_argument(layer: LayerSpec) -> str | None:
    """The argument that says how many values (per position) a layer puts out: ``units`` or ``filters``."""
    for argument in ("filters", "units"):
        if argument in layer.arguments:
            return argument
    return "filters" if "Conv" in layer.kind else "units" if "Dense" in layer.kind else None
