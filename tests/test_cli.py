"""The door itself: spellings, exit codes, missing extras. Each command is tested beside its own module."""

from __future__ import annotations

import importlib
import subprocess
import sys

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attar import __version__
from attar.apps import cli as door
from attar.apps.cli import COMMANDS, accept_underscores, main
from attar.errors import TargetError


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "attar", *arguments], capture_output=True, text=True, check=False
    )


def fails(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Every command raises this."""

    def stop(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(door.cli, "main", stop)


def code_of(*arguments: str) -> object:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    return stop.value.code


@pytest.mark.parametrize(
    ("given_", "meant"),
    [
        (["--latent_dims", "5"], ["--latent-dims", "5"]),
        (["--latent_dims=a_b"], ["--latent-dims=a_b"]),
        (["-o_x", "my_file"], ["-o_x", "my_file"]),
        (["--a_b", "--", "--c_d"], ["--a-b", "--", "--c_d"]),
        ([], []),
    ],
)
def test_underscores_are_dashes_in_options_only(given_: list[str], meant: list[str]) -> None:
    assert accept_underscores(given_) == meant


@given(st.lists(st.text()))
def test_spelling_leaves_everything_else(words: list[str]) -> None:
    spelt = accept_underscores(words)
    assert accept_underscores(spelt) == spelt
    assert [word.replace("_", "-") for word in spelt] == [word.replace("_", "-") for word in words]


def test_help_and_version_and_usage() -> None:
    shown = run("--help")
    assert shown.returncode == 0
    for name, (_, _, line) in COMMANDS.items():
        assert name in shown.stdout
        assert line.split()[0] in shown.stdout
    assert run("--version").stdout == f"attar, version {__version__}\n"
    assert shown.stderr == ""
    wrong = run("comprss")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "No such command 'comprss'" in wrong.stderr


def test_a_failure_is_the_exit_code_of_python_m_attar() -> None:
    """click hands the code back instead of raising it, and several failed files are such a code."""
    done = run("info", "no-such-file.attar", "nor-this.attar")
    assert done.returncode == 1
    assert "no-such-file.attar: no such file" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (TargetError("a.png: 20 bytes cannot be reached"), 3, "attar: a.png: 20 bytes cannot be reached\n"),
        (
            ModuleNotFoundError("No module named 'keras'", name="keras.layers"),
            2,
            "keras is not installed: pip install 'attar",
        ),
        (KeyboardInterrupt(), 130, "attar: interrupted\n"),
        (click.UsageError("no"), 2, "Error: no"),
        (click.exceptions.Exit(4), 4, ""),
    ],
)
def test_errors_are_one_line_and_a_code(
    error: BaseException,
    code: int,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fails(monkeypatch, error)
    assert code_of("info") == code
    captured = capsys.readouterr()
    assert line in captured.err
    assert captured.out == ""


def test_a_broken_installation_is_not_called_a_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    fails(monkeypatch, ModuleNotFoundError("No module named 'attar.codec.images'", name="attar.codec.images"))
    with pytest.raises(ModuleNotFoundError):
        main(["info"])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_help_exists(name: str) -> None:
    module, attribute, line = COMMANDS[name]
    command = getattr(importlib.import_module(f"attar.apps.cli.{module}"), attribute)
    assert isinstance(command, click.Command)
    assert door.cli.get_command(click.Context(door.cli), name) is command
    assert command.name == name
    assert line.endswith(".")
