"""``ModelSpec`` -> a Keras network. The only place where the names in a model.json become Keras layers.

::

    images (B,H,W,C) uint8 --analysis--> latent --quantiser--> symbols --synthesis--> regenerated (B,H,W,C)
                                                          \\--prior--> bits (B,)                     in [0, 1]
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from attar import spec as specs
from attar.errors import SpecError
from attar.train import layers
from attar.train.geometry import geometry

FACTORIZED_OPTIONS = {"kind": "factorized", "components": 3, "spread": 3.0}
MOST_LATENT_CHANNELS = 4096  # what a bundle can say; a latent has at most two dimensions more
AUTOMATIC_NUMBER = re.compile(r"_\d+$")  # of a Keras object without a name of its own: it counts the process


class Forward(NamedTuple):
    """What one pass gives: regenerated (B, H, W, C) in [0, 1], bits (B,), symbols (B, ..., C)."""

    regenerated: Any
    bits: Any
    symbols: Any
    lambdas: Any = None
    """Weight of each image's distortion (B,), where the model serves a range of rates."""


@keras.saving.register_keras_serializable("attar")
class Network(keras.Model):
    """Analysis, quantiser, prior and synthesis of one model.json, as one Keras model.

    Use :func:`build`. ``network(images, training=True)`` gives a :class:`Forward`; the loss is the caller's.
    """

    def __init__(
        self, spec: specs.ModelSpec, analysis: Any, synthesis: Any, prior: Any, seed: int | None
    ) -> None:
        super().__init__(name="network")
        self.spec = spec
        self.analysis = analysis
        self.synthesis = synthesis
        self.prior = prior
        self.quantizer = layers.Quantizer(seed, name="quantizer")
        self.fixed_latents = False
        self.latent_shape = functools.cache(analysis.compute_output_shape)  # too slow for every step
        self.built = True

    def call(self, images: Any, training: bool = False, *, noise: Any = None) -> Forward:
        """Images (B, H, W, C) uint8 (or 0..255 in float) -> :class:`Forward`; noise: see draw."""
        latent = self.analysis(images, training=training)
        symbols, noisy = self.quantizer(latent, training=training, noise=noise, noiseless=self.fixed_latents)
        bits = self.prior(noisy)
        bits = ops.sum(bits, axis=tuple(range(1, len(bits.shape))))
        return Forward(self.synthesis(symbols, training=training), bits, symbols)

    def draw(self, shape: tuple[int, ...]) -> dict[str, Any]:
        """Random numbers that :meth:`call` takes for a batch of ``shape`` in training, or draws itself.

        Drawing breaks a graph that PyTorch compiles, so it is done before; and several processes that share
        a batch draw for all of it. Every value has the batch's images along its first axis.
        """
        if self.fixed_latents:
            return {"noise": None}
        return {"noise": self.quantizer.draw(self.latent_shape(tuple(shape)))}

    def train_only(self, what: str) -> None:
        """Train some networks and leave the others as they are.

        ``prior``: what codes the latents, on the rounded ones of a file. Noise gives the transforms a gradient and
        overstates the rate where most symbols are zero, so that the prior is wider than files want it. Soft, then
        hard: Guo et al. 2021 (arXiv:2104.05168). ``synthesis``: a better decoder for the files that there are.
        ``encoder``: everything else, for the decoder that there is.
        """
        self.fixed_latents = what != "encoder"
        trained = {
            "prior": self.prior_parts,
            "synthesis": {"synthesis"},
            "encoder": self.parts.keys() - {"synthesis"},
        }[what]
        for name, part in self.parts.items():
            part.trainable = name in trained
        if what == "synthesis":
            self.prior.trainable = False

    @property
    def prior_parts(self) -> frozenset[str]:
        """The :attr:`parts` that only choose tables."""
        return frozenset()

    @property
    def has_qualities(self) -> bool:
        """Whether one model serves a range of rates."""
        return False

    @property
    def parts(self) -> dict[str, Any]:
        """The Keras models that a bundle holds, by name."""
        return {"analysis": self.analysis, "synthesis": self.synthesis}

    def shapes(self, size: int) -> tuple[Any, Any]:
        """Shapes of latent and regenerated image of a square image; raises where they do not fit."""
        latent = self.analysis.compute_output_shape((1, size, size, self.spec.input_shape[2]))
        return latent, self.synthesis.compute_output_shape(latent)

    def named_variables(self) -> dict[str, Any]:
        """Every variable (weights, statistics, random states) by a name that is the same in every process."""
        return lasting_names(self.variables, self.spec)

    def get_config(self) -> dict[str, Any]:
        """What rebuilds the network: the model.json itself."""
        return {"document": dict(self.spec.document)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Any = None) -> Network:
        """Rebuild from the model.json."""
        return build(specs.parse(config["document"], "model.json"))


def lasting_names(variables: Iterable[Any], spec: specs.ModelSpec) -> dict[str, Any]:
    """Variables by Keras's path, without the numbers that Keras appends to what the model.json leaves unnamed."""
    ours = {layer.name for part in spec.blocks.values() for layer in part}
    found: dict[str, Any] = {}
    times: Counter[str] = Counter()
    for variable in variables:
        parts = variable.path.split("/")
        name = "/".join(part if part in ours else AUTOMATIC_NUMBER.sub("", part) for part in parts)
        times[name] += 1
        found[name if times[name] == 1 else f"{name}#{times[name]}"] = variable
    return found


def build(spec: specs.ModelSpec, *, seed: int | None = None, dtype: str = "float32") -> Network:
    """Build the network of a model.json.

    Args:
        spec: the parsed file, with its latent dimensions filled in.
        seed: seed of the initial weights and of the quantisation noise; None draws one.
        dtype: Keras dtype policy of the two transforms, ``float32`` or ``mixed_bfloat16``.

    Raises:
        SpecError: with every fault found: unknown layers, arguments that a layer refuses, layers that do not
            fit, a decoder whose output is not shaped like the input.
    """
    if seed is not None:
        keras.utils.set_random_seed(seed)
    if spec.entropy.get("kind") == "hyperprior":
        from attar.train import hyperprior

        hyper = hyperprior.build(spec, seed, dtype)
        geometry(hyper)
        return hyper
    options = _entropy_options(spec)
    with policy(dtype):
        chains = make_layers(spec)
        inputs = keras.Input(spec.input_shape, name="image", dtype="uint8")
        latent = chain(layers.PixelsToUnit(name="pixels_to_unit")(inputs), chains["encoder"], spec)
        _check_latent(spec, latent.shape[1:])
        analysis = keras.Model(inputs, latent, name="analysis")
        symbols = keras.Input(latent.shape[1:], name="symbols", dtype="float32")
        image = chain(symbols, chains["decoder"], spec)
        clipped = layers.ClipToUnit(name="clip_to_unit", dtype="float32")(image)
        synthesis = keras.Model(symbols, clipped, name="synthesis")
    prior = layers.FactorizedPrior(options["components"], options["spread"], name="prior")
    prior.build(latent.shape)
    network = Network(spec, analysis, synthesis, prior, seed)
    geometry(network)  # refuses a decoder that does not give the input's shape back
    return network


def in_float32(network: Network) -> Network:
    """The same network, computing in float32 throughout, as runtimes do: itself, if it does so already.

    Reduced precision is a matter of training: of ``bf16``, or of a layer's own ``dtype``.
    """
    plain = _without_dtypes(dict(network.spec.document))
    parts = (network.analysis, network.synthesis)
    if plain == network.spec.document and all(
        layer.compute_dtype == "float32" for part in parts for layer in part.layers
    ):
        return network
    made = build(specs.parse(plain, network.spec.name))
    values = network.named_variables()
    for name, variable in made.named_variables().items():
        variable.assign(ops.cast(values[name].value, variable.dtype))
    made.spec = network.spec
    return made


def _without_dtypes(value: Any) -> Any:
    """A document without the dtypes of its layers; that of the input stays."""
    if isinstance(value, list):
        return [_without_dtypes(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    return {
        key: dict(item) if key == "Input" else _without_dtypes(item)
        for key, item in value.items()
        if key != "dtype"
    }


@contextmanager
def policy(dtype: str) -> Iterator[None]:
    """Layers made inside compute with the Keras dtype policy ``dtype``."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _entropy_options(spec: specs.ModelSpec) -> dict[str, Any]:
    """The ``entropy`` object over its defaults, checked together with what else the codec can hold."""
    given = dict(spec.entropy)
    faults = [
        f"entropy.{key}: unknown key, expected one of {', '.join(FACTORIZED_OPTIONS)}"
        for key in given
        if key not in FACTORIZED_OPTIONS
    ]
    options = {**FACTORIZED_OPTIONS, **given}
    if options["kind"] != "factorized":
        faults.append(f"entropy.kind: {options['kind']!r} is unknown, expected 'factorized'")
    components = options["components"]
    if not (type(components) is int and 1 <= components <= 16):
        faults.append(f"entropy.components: {components!r}, expected a whole number from 1 to 16")
    if not (type(options["spread"]) in (int, float) and 0 < options["spread"] < 1e4):
        faults.append(f"entropy.spread: {options['spread']!r}, expected a number above 0 and below 10000")
    faults += [
        f"{layer_specs[0].path}: the block {block} has no use beside a factorized prior: leave it out"
        for block, layer_specs in spec.blocks.items()
        if block not in (*specs.REQUIRED_BLOCKS, "discriminator")
    ]
    height, width, channels = spec.input_shape
    if channels not in (1, 3):
        faults.append(
            f"model.layers.inputs[0].Input.shape: {channels} channels, expected 1 (gray) or 3 (RGB)"
        )
    if (height is None) != (width is None):
        faults.append(
            "model.layers.inputs[0].Input.shape: height and width: expected both or neither to be null"
        )
    if faults:
        raise SpecError(spec.name, faults)
    return options


def _check_latent(spec: specs.ModelSpec, shape: tuple[int | None, ...]) -> None:
    """Refuse a latent (without the batch) that no bundle could describe."""
    path, fixed = spec.blocks["encoder"][-1].path, None not in spec.input_shape
    expected = "(C,), (N, C) or (H, W, C)" if fixed else "(H, W, C), as the input's height and width are open"
    if len(shape) != 3 and not (fixed and 1 <= len(shape) <= 2):
        raise SpecError(spec.name, [f"{path}: the latent has shape {list(shape)}, expected {expected}"])
    if not 1 <= (shape[-1] or 0) <= MOST_LATENT_CHANNELS:
        raise SpecError(
            spec.name, [f"{path}: the latent has {shape[-1]} channels, expected 1 to {MOST_LATENT_CHANNELS}"]
        )
    if fixed and None in shape:
        raise SpecError(
            spec.name, [f"{path}: the latent has the open shape {list(shape)}, expected a fixed one"]
        )


def make_layers(
    spec: specs.ModelSpec, blocks: Collection[str] = specs.BLOCKS
) -> dict[str, list[tuple[specs.LayerSpec, Any]]]:
    """Every layer of the blocks, constructed; all faults of all layers at once."""
    faults: list[str] = []
    chains: dict[str, list[tuple[specs.LayerSpec, Any]]] = {}
    for block, layer_specs in spec.blocks.items():
        if block not in blocks:
            continue
        chains[block] = []
        for layer in layer_specs:
            if layer.name == "compressed_representation" and _has_open_size(layer):
                faults.append(
                    f"{layer.path}: its size is open (null): give it in the file or by --latent-dims"
                )
                continue
            try:
                chains[block].append((layer, make_layer(layer.kind, {**layer.arguments, "name": layer.name})))
            except Exception as error:  # a constructor may raise anything: the file's fault
                faults.append(f"{layer.path}: {_first_line(error)}")
    if faults:
        raise SpecError(spec.name, faults)
    return chains


def _has_open_size(layer: specs.LayerSpec) -> bool:
    return any(key in layer.arguments and layer.arguments[key] is None for key in ("units", "filters"))


def layer_class(kind: str) -> type:
    """The class that a layer's name in a model.json stands for: one of ours, else one of ``keras.layers``."""
    found = layers.LAYERS.get(kind) or getattr(keras.layers, kind, None)
    if (
        not (isinstance(found, type) and issubclass(found, keras.layers.Layer))
        or kind in specs.FORBIDDEN_LAYERS
    ):
        raise ValueError(f"{kind} is no layer of Attar or Keras that a model.json may name")
    return found


def make_layer(kind: str, arguments: Mapping[str, Any]) -> Any:
    """One Keras layer; arguments of the form ``{"<layer name>": {...}}`` become layers (for wrappers)."""
    return layer_class(kind)(**{key: _argument(value) for key, value in arguments.items()})


def _argument(value: Any) -> Any:
    if isinstance(value, list):
        return [_argument(item) for item in value]
    if isinstance(value, Mapping) and len(value) == 1:
        ((kind, inner),) = value.items()
        if isinstance(inner, Mapping) and (kind in layers.LAYERS or hasattr(keras.layers, kind)):
            return make_layer(kind, inner)
    return value


def chain(
    tensor: Any, steps: list[tuple[specs.LayerSpec, Any]], spec: specs.ModelSpec, quality: Any = None
) -> Any:
    """Apply layers one after the other; the first that does not fit is named with the shape it was given.

    ``quality`` (B,) goes to the layers that ask for it.
    """
    for layer_spec, layer in steps:
        takes_quality = getattr(layer, "takes_quality", False)
        if takes_quality and quality is None:
            raise SpecError(
                spec.name,
                [f"{layer_spec.path}: only a hyperprior's encoder and decoder are given a quality"],
            )
        try:
            tensor = layer([tensor, quality]) if takes_quality else layer(tensor)
        except Exception as error:  # Keras raises many kinds for shapes that do not fit
            given = f"an input of shape {list(tensor.shape[1:])}"
            fault = f"{layer_spec.path}: does not fit {given}: {_first_line(error)}"
            raise SpecError(spec.name, [fault]) from error
        if not hasattr(tensor, "shape"):
            raise SpecError(
                spec.name, [f"{layer_spec.path}: gives {type(tensor).__name__}, expected one tensor"]
            )
    return tensor


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return " ".join(text.split("\n\n")[0].split())[:300]


def parameters(network: Network) -> dict[str, int]:
    """Number of weights in each part."""
    return {name: size(part) for name, part in [*network.parts.items(), ("prior", network.prior)]}


def size(model: Any) -> int:
    """Number of weights that are trained."""
    return int(sum(np.prod(variable.shape) for variable in model.trainable_variables))
