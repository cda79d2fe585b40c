"""``attar serve``."""

from __future__ import annotations

import ipaddress
import signal
import socket
from pathlib import Path

import click

from attar.apps.cli import common
from attar.errors import AttarError

__all__ = ["serve"]


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any free one."
)
@click.option(
    "--allow-host",
    multiple=True,
    metavar="NAME",
    help="Also answer under this name, where others may reach the server.  [repeatable]",
)
@click.option(
    "--workers", type=click.IntRange(1, 256), default=2, show_default=True, help="Requests worked on at once."
)
@click.option(
    "--max-bytes", type=click.IntRange(1), default=64 << 20, show_default=True, help="Refuse larger uploads."
)
@click.option(
    "--max-pixels", type=click.IntRange(1), default=1 << 24, show_default=True, help="Refuse larger images."
)
@click.option(
    "--runs",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=".",
    metavar="DIR",
    help="Show the training runs in this folder, two levels deep.  [default: the current folder]",
)
def serve(
    host: str,
    port: int,
    allow_host: tuple[str, ...],
    workers: int,
    max_bytes: int,
    max_pixels: int,
    runs: Path,
) -> None:
    """Serve the web app and its JSON API on this machine, until Ctrl-C.

    Its screens draw, compare, measure and inspect, and show the installed models and the runs of attar train
    while they go on. Nothing is loaded from, and nothing sent to, any other host.
    """
    import uvicorn

    from attar.apps.web.app import create_app
    from attar.apps.web.limits import Limits

    common.hush_pillow()
    listening = listen(host, port)
    limits = Limits(
        max_bytes=max_bytes, max_pixels=max_pixels, workers=workers, hosts=tuple({host, *allow_host})
    )
    app = create_app(limits, runs, leaving=lambda: server.should_exit)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", server_header=False))
    shown = f"[{host}]" if ":" in host else host
    if not is_own(listening):
        click.echo(
            f"attar: {host} may be reached from other machines: whoever reaches it uses this server without a "
            "password and sees its runs",
            err=True,
        )
    # From here on Ctrl-C is the server's, which would lose one while it starts.
    before = signal.signal(signal.SIGINT, server.handle_exit)
    try:
        click.echo(f"Attar is at http://{shown}:{listening.getsockname()[1]}/ (Ctrl-C ends it)")
        click.echo(
            f"It shows the training runs in {runs.resolve()}; its API describes itself at /api/openapi.json"
        )
        with listening:
            server.run(sockets=[listening])
    finally:
        signal.signal(signal.SIGINT, before)


def is_own(listening: socket.socket) -> bool:
    """Whether only this machine reaches a socket."""
    return ipaddress.ip_address(listening.getsockname()[0]).is_loopback


def listen(host: str, port: int) -> socket.socket:
    """A bound socket; raises :class:`AttarError` where the address cannot be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise AttarError(
            f"{host}:{port} cannot be listened on: {error.strerror or error}; name another with --host or --port"
        ) from error
