"""Ctrl-C or SIGTERM while training: remembered, and acted upon where nothing is half done."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

DEFAULTS: Mapping[signal.Signals, Any] = MappingProxyType(
    {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
)
"""What stops a run, with the handlers that we may replace. Schedulers of clusters send SIGTERM."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, raised between two steps, where weights and books agree."""


@contextlib.contextmanager
def deferred(interrupt: threading.Event) -> Iterator[None]:
    """Let the first signal only set ``interrupt``; the second one acts at once.

    A handler that somebody else has set, and threads that get no signals, are left alone.
    """
    interrupt.clear()
    ours = threading.current_thread() is threading.main_thread()
    replaced = [number for number, usual in DEFAULTS.items() if ours and signal.getsignal(number) is usual]

    def remember(*_: Any) -> None:
        interrupt.set()
        restore()

    def restore() -> None:
        for number in replaced:
            signal.signal(number, DEFAULTS[number])

    for number in replaced:
        signal.signal(number, remember)
    try:
        yield
    finally:
        restore()
