"""The layers that a model.json may name, found by looking: Attar's own first, then every layer of Keras."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import MappingProxyType

from attar.spec import FORBIDDEN_LAYERS, Catalogue, LayerInfo

# Layers of keras.layers that are no step of a network: bases to inherit from, and what "inputs" stands for.
NOT_STEPS = ("Layer", "Wrapper", "InputLayer")


def classes() -> Mapping[str, type]:
    """Name in the file -> layer class; a layer of Attar hides the layer of Keras that has its name."""
    import keras

    from attar.train.layers import LAYERS

    refused = {*FORBIDDEN_LAYERS, *NOT_STEPS}
    found = {
        name: value
        for name, value in inspect.getmembers(keras.layers, inspect.isclass)
        if issubclass(value, keras.layers.Layer) and name not in refused
    }
    return MappingProxyType(found | {name: cls for name, cls in LAYERS.items() if name not in refused})


def catalogue() -> Catalogue:
    """What :func:`attar.spec.load` needs to check names and arguments of layers. Imports Keras."""
    return Catalogue({name: _inspected(cls) for name, cls in classes().items()})


def _inspected(cls: type) -> LayerInfo:
    """Argument names of a layer: its own, and those that ``**kwargs`` hands on to its bases.

    A base's argument without a default is one that the layer fills in itself (the ``rank`` of a
    convolution). A wrong value, or an argument that the layer fills in as well, is found when it is built.
    """
    import keras

    own, *inherited = [base for base in cls.__mro__ if "__init__" in vars(base)]
    parameters = _parameters(own)
    names = {name for name, parameter in parameters.items() if _is_named(parameter)}
    required = {name for name in names if parameters[name].default is inspect.Parameter.empty}
    while own is not keras.layers.Layer and _hands_on(parameters):
        own, *inherited = inherited
        parameters = _parameters(own)
        names |= {
            name
            for name, parameter in parameters.items()
            if _is_named(parameter) and parameter.default is not inspect.Parameter.empty
        }
    return LayerInfo(frozenset(names - {"name"}), frozenset(required - {"name"}), _first_sentence(cls))


def _parameters(cls: type) -> dict[str, inspect.Parameter]:
    _self, *parameters = inspect.signature(vars(cls)["__init__"]).parameters.values()
    return {parameter.name: parameter for parameter in parameters}


def _is_named(parameter: inspect.Parameter) -> bool:
    return parameter.kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _hands_on(parameters: Mapping[str, inspect.Parameter]) -> bool:
    return any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())


def _first_sentence(cls: type) -> str:
    paragraph = (inspect.getdoc(cls) or "").split("\n\n")[0]
    return " ".join(paragraph.split()).split(". ")[0].removesuffix(".")
