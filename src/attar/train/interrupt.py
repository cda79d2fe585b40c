"""Ctrl-C while training: remembered, and acted upon where nothing is half done."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, raised between two steps, where weights and books agree."""


@contextlib.contextmanager
def deferred(interrupt: threading.Event) -> Iterator[None]:
    """Let the first Ctrl-C only set ``interrupt``; the second one is raised at once.

    A handler that somebody else has set, and threads that get no signals, are left alone.
    """
    interrupt.clear()
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def remember(*_: Any) -> None:
        interrupt.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
