"""Requests to stop: signals and the abort files of RELION and CCP-EM, turned into a flag that the work polls."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

_SIGNALS = ("SIGINT", "SIGTERM", "SIGUSR1")


_ACTIVE: list[Interrupts] = []
"""Of the jobs that run, the outermost first: a job that runs others stops with the one it is at."""


class Interrupts:
    """Remembers the first request to stop while active; a second Ctrl-C interrupts at once."""

    def __init__(self, abort_files: Sequence[Path], on_request: Callable[[str], None]) -> None:
        self._abort_files = abort_files
        self._on_request = on_request
        self._previous: dict[int, Any] = {}
        self._reason: str | None = None
        self._outer: Interrupts | None = None

    def start(self) -> None:
        """Take over the signals.  Only the main thread may, elsewhere the abort files are the only way."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._outer = _ACTIVE[-1] if _ACTIVE else None
        _ACTIVE.append(self)
        for name in _SIGNALS:
            number = getattr(signal, name, None)
            if number is not None:
                self._previous[number] = signal.signal(number, self._handle)

    def stop(self) -> None:
        """Give the signals back, and hand a request that came meanwhile to the job around this one."""
        if self in _ACTIVE:
            _ACTIVE.remove(self)
        if self._outer is not None and self._outer._reason is None:
            self._outer._reason = self._reason
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    @property
    def reason(self) -> str | None:
        """Name of the signal or file that asked to stop, None if nothing did."""
        if self._reason is None:
            self._reason = next((file.name for file in self._abort_files if file.exists()), None)
        if self._reason is None and self._outer is not None:
            self._reason = self._outer.reason
        return self._reason

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._reason is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._reason = signal.Signals(number).name
        self._on_request(self._reason)
