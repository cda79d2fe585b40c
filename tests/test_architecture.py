"""The invariants of ARCHITECTURE.md. Every checker is also shown a planted fault, which it must find."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from attar.apps.cli import EXTRAS

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "attar"
# Left to right: a module imports only from its own group or from one on its left.
ORDER = ["errors", "plainjson", "spec", "codec", "measure", "train", "apps"]
# The package itself is the users' door to codec/: what is right of it may use it, the rest takes the version.
DOOR = "codec"
OF_THE_DOOR = {"__version__"}

# Foreign library -> the only modules, or folders of modules, that may import it.
FOREIGN = {
    "numpy": ["attar.codec", "attar.measure", "attar.train", "attar.apps", "attar"],
    "PIL": [
        "attar.codec.images",
        "attar.codec.codec",
        "attar.codec.pillow",
        "attar.measure",
        "attar.train.datasets",
    ],
    "constriction": ["attar.codec.entropy"],
    "onnxruntime": ["attar.codec.networks", "attar.measure.autoencoder", "attar.train.graphs"],
    "matplotlib": ["attar.measure", "attar.train"],
    "bjontegaard": ["attar.measure"],
    "imagecodecs": ["attar.measure"],
    "keras": ["attar.train"],
    "torch": ["attar.train"],
    "tensorflow": ["attar.train"],
    "jax": ["attar.train"],
    "h5py": ["attar.train"],
    "onnx": ["attar.train"],
    "onnxscript": ["attar.train"],
    "tensorboard": ["attar.train"],
    "tensorflow_datasets": ["attar.train.datasets"],
    "click": ["attar.apps"],
    "rich": ["attar.apps", "attar.train.datasets"],
    "fastapi": ["attar.apps.web"],
    "starlette": ["attar.apps.web"],
    "pydantic": ["attar.apps.web"],
    "uvicorn": ["attar.apps.web", "attar.apps.cli"],
    "ray": ["attar.apps.bulk", "attar.apps.cluster"],
}
# Ways to run what a file says. None of them is used anywhere.
CODE_LOADERS = {"pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle"}
# Inside codec/, bytes from outside are taken apart only by these: .attar files, bundles, image files.
PARSERS = {"zipfile", "json", "struct"}
DOORS = [f"attar.codec.{name}" for name in ("bundle", "manifest", "container", "chunks", "images")]
MOST_LINES = 400

MUTABLE_CALLS = {"list", "dict", "set", "bytearray", "defaultdict", "OrderedDict", "Counter", "deque"}
CHANGES = {
    "add",
    "append",
    "clear",
    "discard",
    "extend",
    "insert",
    "pop",
    "popitem",
    "remove",
    "setdefault",
    "update",
}


def modules() -> dict[str, Path]:
    """Dotted name -> file, for every module of the package."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()
SOURCES = {name: path.read_text("utf-8") for name, path in MODULES.items()}


def imports(source: str) -> Iterator[tuple[int, str, str | None]]:
    """(line, module, name or None) of every import, inside functions and TYPE_CHECKING blocks as well."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, None
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node.lineno, "." * node.level + (node.module or ""), alias.name


def group(module: str) -> str:
    """The part of the import order that a module is in; empty for the package itself."""
    name = module.partition(".")[2].partition(".")[0]
    return "apps" if name == "__main__" else name


def order_faults(module: str, source: str) -> Iterator[str]:
    """Imports of a module on the right, of the package's own door, or relative ones."""
    ours = group(module)
    rank = ORDER.index(ours) if ours else len(ORDER)
    for line, target, name in imports(source):
        where = f"{module}:{line}: imports {target}"
        if target.startswith("."):
            yield f"{where}: a relative import"
            continue
        if target.split(".")[0] != "attar" or (target == "attar" and name in OF_THE_DOOR):
            continue
        theirs = group(target) or (name if name in ORDER else "")
        if not theirs and rank <= ORDER.index(DOOR):
            yield f"{where}: the public door is for what is right of {DOOR}"
        elif theirs and theirs not in ORDER:
            yield f"{where}: not in the import order"
        elif theirs and ORDER.index(theirs) > rank:
            yield f"{where}: {theirs} is right of {ours}"


def foreign_faults(module: str, source: str) -> Iterator[str]:
    """Imports of a foreign library where it does not belong, or of one that nobody named."""
    for line, target, _ in imports(source):
        library = target.split(".")[0]
        if library in sys.stdlib_module_names or library == "attar" or target.startswith("."):
            continue
        if library not in FOREIGN:
            yield f"{module}:{line}: imports {library}, which no module is named for"
        elif not any(
            module == place or (place != "attar" and module.startswith(f"{place}."))
            for place in FOREIGN[library]
        ):
            yield f"{module}:{line}: imports {library}, which is only for {', '.join(FOREIGN[library])}"


def code_faults(module: str, source: str) -> Iterator[str]:
    """Pickle and its like, eval, exec; inside codec/ any parsing of bytes beyond the doors."""
    for line, target, _ in imports(source):
        library = target.split(".")[0]
        if library in CODE_LOADERS:
            yield f"{module}:{line}: imports {library}, which runs what a file says"
        if library in PARSERS and group(module) == "codec" and module not in DOORS:
            yield f"{module}:{line}: imports {library}: bytes enter codec/ only through {', '.join(DOORS)}"
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in {"eval", "exec"}
        ):
            yield f"{module}:{node.lineno}: {node.func.id}() runs text"
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and not is_false(node.value):
            yield f"{module}:{node.lineno}: allow_pickle"


def is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def state_faults(module: str, source: str) -> Iterator[str]:
    """Module-level lists, dicts and sets that are not constants, changed constants, ``global``."""
    tree = ast.parse(source)
    constants = set()
    for node in module_level(tree):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for target in targets:
            if isinstance(target, ast.Name) and is_mutable(node.value):
                constants.add(target.id)
                if not re.fullmatch(r"_?[A-Z][A-Z0-9_]*|__\w+__", target.id):
                    yield f"{module}:{node.lineno}: {target.id} is mutable and at module level"
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            yield f"{module}:{node.lineno}: global {', '.join(node.names)}"
        name = changed_name(node)
        if name in constants:
            yield f"{module}:{getattr(node, 'lineno', 0)}: changes the constant {name}"


def module_level(tree: ast.Module) -> Iterator[ast.Assign | ast.AnnAssign]:
    """Assignments that run on import, also those under if, try and with."""
    todo: list[ast.AST] = list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            yield node
        elif isinstance(node, (ast.If, ast.Try, ast.With, ast.For, ast.While, ast.ExceptHandler)):
            todo += ast.iter_child_nodes(node)


def is_mutable(value: ast.expr | None) -> bool:
    if isinstance(value, (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)):
        return True
    if isinstance(value, ast.Call):
        function = value.func
        name = function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")
        return name in MUTABLE_CALLS
    return False


def changed_name(node: ast.AST) -> str | None:
    """The name that a node changes in place: ``x[i] = 1``, ``del x[i]``, ``x.append(1)``, ``x += [1]``."""
    target: ast.AST | None = None
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, (ast.Store, ast.Del)):
        target = node.value
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CHANGES:
        target = node.func.value
    elif isinstance(node, ast.AugAssign):
        target = node.target
    return target.id if isinstance(target, ast.Name) else None


def length_faults(module: str, source: str) -> Iterator[str]:
    lines = source.count("\n")
    if lines >= MOST_LINES:
        yield f"{module}: {lines} lines, expected less than {MOST_LINES}"


def assert_faults(module: str, source: str) -> Iterator[str]:
    """A user never meets an assert; a bare except hides what it does not know."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assert):
            yield f"{module}:{node.lineno}: assert"
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            yield f"{module}:{node.lineno}: bare except"


Checker = Callable[[str, str], Iterator[str]]
PLANTED: list[tuple[Checker, str, str, str]] = [
    # checker, the module that the source is said to be, the source, what must be reported
    (order_faults, "attar.codec.images", "import attar.train.layers", "train is right of codec"),
    (
        order_faults,
        "attar.spec",
        "def f():\n    from attar.codec import tables",
        "attar.spec:2: .*codec is right of spec",
    ),
    (order_faults, "attar.measure.curves", "from attar import apps", "apps is right of measure"),
    (order_faults, "attar.codec.tables", "from . import images", "relative import"),
    (order_faults, "attar.codec.tables", "from attar import Codec", "the public door is for what is right"),
    (order_faults, "attar.spec", "import attar", "the public door is for what is right"),
    (order_faults, "attar.apps.cli", "import attar.lab", "not in the import order"),
    (foreign_faults, "attar.codec.images", "import torch.nn", "torch, which is only for attar.train"),
    (foreign_faults, "attar.codec.entropyx", "import constriction", "only for attar.codec.entropy"),
    (foreign_faults, "attar.errors", "import numpy as np", "numpy, which is only for"),
    (foreign_faults, "attar.train.trainer", "import lightning", "lightning, which no module is named for"),
    (code_faults, "attar.train.checkpoint", "import pickle", "runs what a file says"),
    (code_faults, "attar.train.checkpoint", "np.load(path, allow_pickle=True)", "allow_pickle"),
    (code_faults, "attar.codec.tables", "from struct import unpack", "bytes enter codec/ only through"),
    (code_faults, "attar.apps.cli", "eval('1')", r"eval\(\) runs text"),
    (state_faults, "attar.codec.images", "cache = {}", "cache is mutable and at module level"),
    (state_faults, "attar.codec.images", "if True:\n    seen: set[int] = set()", "seen is mutable"),
    (state_faults, "attar.codec.images", "x = collections.defaultdict(int)", "x is mutable"),
    (
        state_faults,
        "attar.codec.images",
        "KINDS = []\ndef f():\n    KINDS.append(1)",
        ":3: changes the constant KINDS",
    ),
    (
        state_faults,
        "attar.codec.images",
        "KINDS = {}\ndef f():\n    KINDS['a'] = 1",
        "changes the constant KINDS",
    ),
    (state_faults, "attar.codec.images", "def f():\n    global N\n    N = 1", "global N"),
    (length_faults, "attar.codec.images", "\n" * MOST_LINES, "400 lines, expected less"),
    (assert_faults, "attar.codec.images", "assert 1", ":1: assert"),
    (assert_faults, "attar.codec.images", "try:\n    pass\nexcept:\n    pass", "bare except"),
]
CHECKERS = list(dict.fromkeys(checker for checker, *_ in PLANTED))


@pytest.mark.parametrize("checker", CHECKERS, ids=lambda checker: checker.__name__)
def test_the_package_has_no(checker: Checker) -> None:
    faults = [fault for module, source in SOURCES.items() for fault in checker(module, source)]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(("checker", "module", "source", "fault"), PLANTED)
def test_a_planted_fault_is_found(checker: Checker, module: str, source: str, fault: str) -> None:
    (found,) = checker(module, source)
    assert re.search(fault, found), found


def test_sound_sources_have_no_faults() -> None:
    source = """
from __future__ import annotations
import numpy.typing
from attar import __version__, spec
from attar.errors import AttarError
NAMES = {"a": 1}
__all__ = ["f"]
def f(names):
    local = []
    local.append(names)
    np.load("x", allow_pickle=False)
    return NAMES["a"]
"""
    assert [fault for checker in CHECKERS for fault in checker("attar.codec.tables", source)] == []


def test_the_checkers_see_the_whole_package() -> None:
    assert {"attar", "attar.spec", "attar.codec.container", "attar.train.layers", "attar.apps.cli"} <= set(
        SOURCES
    )
    assert {group(module) for module in SOURCES} - {""} == set(ORDER)


def test_every_extra_that_an_error_may_name_exists() -> None:
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    for library, extra in EXTRAS.items():
        packages = " ".join(extras[extra]).replace("-", "_")
        assert library in packages, (library, extra)


def test_the_package_is_typed() -> None:
    assert (SOURCE / "py.typed").exists()
