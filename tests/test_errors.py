"""The exception tree: documented, with exit codes, and able to cross between processes."""

from __future__ import annotations

import pickle
import re

import pytest

from attar import errors
from attar.errors import AttarError, MissingExtraError, SpecError

CLASSES = [getattr(errors, name) for name in errors.__all__]
EXIT_CODES = {
    "SpecError": 2,
    "MissingExtraError": 2,
    "TargetError": 3,
    "CheckpointError": 4,
    "BundleError": 4,
}


def made(cls: type[AttarError]) -> AttarError:
    if cls is SpecError:
        return SpecError("m.json", ["a: found 1; expected 2", "b: found 3; expected 4"])
    if cls is MissingExtraError:
        return MissingExtraError("keras", "train")
    return cls("a.png: is not an image")


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_is_in_the_tree_and_crosses_between_processes(cls: type[AttarError]) -> None:
    error = made(cls)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is cls
    assert (str(again), vars(again)) == (str(error), vars(error))
    assert isinstance(error, AttarError)
    assert re.search(rf"\b{cls.__name__}\b", errors.__doc__ or "")
    documented = {"ModelMissingError": 4} | EXIT_CODES
    assert cls.exit_code == documented.get(cls.__name__, 1)


def test_the_drawn_tree_tells_what_else_an_error_is() -> None:
    tree = errors.__doc__ or ""
    for cls in CLASSES:
        others = [base for base in cls.__bases__ if base is not AttarError and base is not Exception]
        (line,) = [line for line in tree.splitlines() if re.search(rf"\b{cls.__name__}\b", line)]
        assert [base.__name__ for base in others] == re.findall(r"\(also (\w+)\)", line)


def test_one_fault_is_one_line_and_more_are_a_list() -> None:
    assert str(SpecError("m.json", ["model: is missing"])) == "m.json: model: is missing"
    assert str(made(SpecError)) == "m.json: 2 faults\n  a: found 1; expected 2\n  b: found 3; expected 4"
    assert str(MissingExtraError("keras", "train")) == "keras is not installed: pip install 'attar[train]'"
