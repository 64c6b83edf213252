"""Which backends exist here, and which one is used.

Names: `reference` (NumPy, float64), `host` (portable C++), `simd-v1`, `simd-v3`, `simd-v4`, `simd-v4-bf16`
(x86-64 levels) or `simd-neon`, `cuda` (plugin), and `cuda-emu` (the CUDA sources on the CPU, for tests only).

Environment: `TILTWISE_BACKEND` replaces the name `auto`; `TILTWISE_ISA` (`v1`, `v3`, `v4`, `v4-bf16`, `neon`) the
level that `auto` takes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from typing import cast

from tiltwise.errors import BackendUnavailable
from tiltwise.kernels.api import Backend
from tiltwise.kernels.reference import ReferenceBackend
from tiltwise.kernels.threads import default_threads

PLUGINS = ("cuda", "cuda-emu")
TEST_ONLY = frozenset({"cuda-emu"})


@dataclass(frozen=True, slots=True)
class BackendStatus:
    """One line of `backend_report`."""

    name: str
    compiled: bool
    available: bool
    active: bool
    """what `load_backend("auto")` takes"""
    test_only: bool
    reason: str
    """why it is not available; empty if it is"""


@cache
def _found() -> dict[str, tuple[Backend | None, bool, str]]:
    """Name to (backend, compiled, reason why it cannot run), slowest first."""
    # The oracle returns float64 where the contract says float32: more than asked for.
    reference = cast(Backend, ReferenceBackend())
    found: dict[str, tuple[Backend | None, bool, str]] = {"reference": (reference, True, "")}
    try:
        from tiltwise.kernels import native
    except ImportError as error:
        # Without the extension module the reference backend still computes; doctor shows the reason.
        found["host"] = (None, False, f"the extension module cannot be imported: {error}")
        return found
    for backend in native.builtin_backends():
        reason = backend.unavailable_reason()
        found[backend.name] = (None if reason else backend, True, reason)
    for name in PLUGINS:
        path = native.plugin_path(name)
        if not path.exists():
            found[name] = (None, False, "not built")
            continue
        try:
            backend = native.open_plugin(name)
            reason = backend.unavailable_reason()
        except BackendUnavailable as error:
            reason = error.what
        found[name] = (None if reason else backend, True, reason)
    return found


def available_backends(include_test_only: bool = False) -> list[str]:
    """Names of the backends this machine can run, slowest first."""
    return [
        name
        for name, (backend, _, _) in _found().items()
        if backend is not None and (include_test_only or name not in TEST_ONLY)
    ]


def _automatic() -> str:
    """The name `auto` stands for: the last of `available_backends`, or what the environment says."""
    named = os.environ.get("TILTWISE_BACKEND", "")
    if named not in ("", "auto"):
        return named
    level = os.environ.get("TILTWISE_ISA", "")
    return f"simd-{level}" if level else available_backends()[-1]


def load_backend(name: str = "auto") -> Backend:
    """Return a backend by name; `BackendUnavailable` with the reason if it cannot run here."""
    chosen = _automatic() if name == "auto" else name
    backend, _, reason = _found().get(chosen, (None, False, "there is no backend of this name"))
    if backend is None:
        raise BackendUnavailable(
            f"backend {chosen!r} cannot be used: {reason}",
            where="TILTWISE_BACKEND or TILTWISE_ISA" if name == "auto" else "--backend",
            expected=f"one of {', '.join(available_backends())}",
            fix="see 'tiltwise doctor' for what this machine can run",
        )
    return backend


def backend_report() -> list[BackendStatus]:
    """Every backend that could exist, with what came of it, slowest first."""
    active = _automatic()
    return [
        BackendStatus(name, compiled, backend is not None, name == active, name in TEST_ONLY, reason)
        for name, (backend, compiled, reason) in _found().items()
    ]


__all__ = ["BackendStatus", "available_backends", "backend_report", "default_threads", "load_backend"]
