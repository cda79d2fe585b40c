"""``attar``: the command line. Each command lives in a module that is imported only when it is called."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import Any

import click

from attar import __version__
from attar.errors import AttarError, MissingExtraError

# command -> (module of this package, attribute, the one line shown by `attar --help`)
COMMANDS = {
    "train": ("training", "train", "Train a codec described by a model.json on images."),
    "validate": ("training", "validate", "Measure a checkpoint on held-out images, with real files."),
    "infer": ("training", "infer", "Regenerate images through an exported model or a bundle."),
    "export": ("training", "export", "Export a checkpoint: bundle, whole network, or encoder and decoder."),
    "compress": ("codec", "compress", "Compress images to .attar files."),
    "decompress": ("codec", "decompress", "Turn .attar files back into images."),
    "bulk": ("bulk", "bulk", "Compress very many images, on all cores or on a Ray cluster."),
    "info": ("codec", "info", "Show what a .attar file or a bundle says of itself."),
    "verify": ("codec", "verify", "Check .attar files to the last bit."),
    "models": ("codec", "models", "List the installed bundles, or show one."),
    "doctor": ("doctor", "doctor", "Say what is installed, and whether every model works here."),
    "compare": ("measuring", "compare", "Compare two images: PSNR, SSIM, MS-SSIM."),
    "serve": ("serve", "serve", "Serve the web app: draw, compress and inspect in a browser."),
    "benchmark": ("measuring", "benchmark", "Measure codecs on images: RD curves, BD-rates, one report."),
}
# module that a command may lack -> the extra that brings it; everything else missing is a broken installation
EXTRAS = {
    "keras": "train",
    "torch": "train",
    "onnx": "train",
    "h5py": "train",
    "tensorboard": "train",
    "tensorflow_datasets": "tfds",
    "matplotlib": "measure",
    "bjontegaard": "measure",
    "imagecodecs": "measure",
    "fastapi": "web",
    "uvicorn": "web",
    "ray": "cluster",
}


def accept_underscores(arguments: list[str]) -> list[str]:
    """Spell every ``--long_option`` with dashes; values and everything after ``--`` stay as they are.

    Scripts written for the system that Attar replaces say ``--latent_dims``.
    """
    out: list[str] = []
    for position, argument in enumerate(arguments):
        if argument == "--":
            return out + arguments[position:]
        name, equals, value = argument.partition("=")
        out.append(name.replace("_", "-") + equals + value if argument.startswith("--") else argument)
    return out


class LazyGroup(click.Group):
    """A group that knows its commands' names and one-line helps without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: D102
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: D102
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: D102
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="attar")
def cli() -> None:
    """Train, export, use and measure autoencoder image codecs."""


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line; every :class:`AttarError` becomes one line on stderr and its exit code."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return _answer(arguments)
    # PyTorch's gloo threads outlive destroy_process_group(), and may abort a Python that is shutting down
    # (pytorch issue 190489). So a process that torchrun started ends without: all its files are closed by now.
    code: Any = 0
    try:
        _answer(arguments)
    except SystemExit as stop:
        code = stop.code
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def _answer(arguments: list[str] | None) -> Any:
    try:
        words = accept_underscores(sys.argv[1:] if arguments is None else arguments)
        return _run(words)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except AttarError as error:
        click.echo(f"attar: {error}", err=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("attar: interrupted", err=True)
        sys.exit(130)


def _run(arguments: list[str]) -> Any:
    try:
        return cli.main(arguments, prog_name="attar", standalone_mode=False)
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in EXTRAS:
            raise
        raise MissingExtraError(package, EXTRAS[package]) from error
