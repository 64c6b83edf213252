"""The compiled backends.  The only user of the extension module `tiltwise._native`."""

from __future__ import annotations

from pathlib import Path

from tiltwise import _native
from tiltwise.kernels.api import C64, C128, F32, F64, I32, Bools, PosteriorSummary
from tiltwise.kernels.threads import default_threads

PACKAGE = Path(__file__).resolve().parent.parent
"""Where plugins lie, beside the extension module."""


class NativeBackend:
    """A table of compiled kernels as a `tiltwise.kernels.api.Backend`."""

    def __init__(self, kernels: _native.Kernels) -> None:
        self._kernels = kernels
        self.name: str = kernels.name
        self.rough_score: bool = kernels.rough_score

    def unavailable_reason(self) -> str:
        """Why this machine cannot run the backend; empty if it can."""
        return self._kernels.unavailable_reason()

    def project(
        self,
        volume: C64,
        matrices: F32,
        frequencies: F32,
        radius: float,
        *,
        out: C64 | None = None,
        threads: int = 0,
    ) -> C64:
        """See `tiltwise.kernels.api.Backend.project`."""
        return self._kernels.project(volume, matrices, frequencies, radius, out, threads or default_threads())

    def insert(
        self,
        slices: C64,
        weights: F32,
        matrices: F32,
        frequencies: F32,
        radius: float,
        data: C128,
        weight: F64,
        *,
        threads: int = 0,
    ) -> None:
        """See `tiltwise.kernels.api.Backend.insert`."""
        self._kernels.insert(slices, weights, matrices, frequencies, radius, data, weight, threads or default_threads())

    def score(
        self,
        slices: C64,
        image: C64,
        power: F32,
        phases: C64,
        rows: I32 | None = None,
        columns: I32 | None = None,
        *,
        wanted: Bools | None = None,
        rough: bool = False,
        threads: int = 0,
    ) -> tuple[F32, F32]:
        """See `tiltwise.kernels.api.Backend.score`."""
        return self._kernels.score(
            slices, image, power, phases, rows, columns, wanted, rough, threads or default_threads()
        )

    def posterior(
        self,
        log_likelihood: F32,
        log_prior_rotation: F32,
        log_prior_shift: F32,
        fraction: float,
        *,
        threads: int = 0,
    ) -> tuple[F32, PosteriorSummary]:
        """See `tiltwise.kernels.api.Backend.posterior`."""
        weights, summary = self._kernels.posterior(
            log_likelihood, log_prior_rotation, log_prior_shift, fraction, threads or default_threads()
        )
        return weights, PosteriorSummary(*summary)

    def backproject(self, weights: F32, image: C64, power: F32, phases: C64, *, threads: int = 0) -> tuple[C64, F32]:
        """See `tiltwise.kernels.api.Backend.backproject`."""
        return self._kernels.backproject(weights, image, power, phases, threads or default_threads())

    def shell_sums(self, a: C64, b: C64, weights: F32 | None, shells: I32, n_shells: int, *, threads: int = 0) -> F64:
        """See `tiltwise.kernels.api.Backend.shell_sums`."""
        return self._kernels.shell_sums(a, b, weights, shells, n_shells, threads or default_threads())

    def curvature(
        self,
        volume: C64,
        matrices: F32,
        frequencies: F32,
        radius: float,
        images: C64,
        powers: F32,
        rows: I32,
        slopes: F32,
        *,
        threads: int = 0,
    ) -> F64:
        """See `tiltwise.kernels.api.Backend.curvature`."""
        return self._kernels.curvature(
            volume, matrices, frequencies, radius, images, powers, rows, slopes, threads or default_threads()
        )

    def condense(
        self,
        volume: C64,
        matrices: F32,
        frequencies: F32,
        radius: float,
        images: C64,
        depths: F32,
        starts: I32,
        turns: F32,
        slopes: F32,
        out: F64,
        *,
        threads: int = 0,
    ) -> None:
        """See `tiltwise.kernels.api.Backend.condense`."""
        self._kernels.condense(
            volume,
            matrices,
            frequencies,
            radius,
            images,
            depths,
            starts,
            turns,
            slopes,
            out,
            threads or default_threads(),
        )

    def phase_cost(
        self, matrices: F64, vectors: F64, basis: F64, parameters: F64, rows: I32, *, threads: int = 0
    ) -> F64:
        """See `tiltwise.kernels.api.Backend.phase_cost`."""
        return self._kernels.phase_cost(matrices, vectors, basis, parameters, rows, threads or default_threads())

    def cc_table(
        self,
        slices: C64,
        images: C64,
        powers: F32,
        weights: F32,
        rows: I32,
        frequencies: I32,
        cosines: F32,
        sines: F32,
        *,
        out: F32 | None = None,
        threads: int = 0,
    ) -> tuple[F32, F64]:
        """See `tiltwise.kernels.api.Backend.cc_table`."""
        return self._kernels.cc_table(
            slices, images, powers, weights, rows, frequencies, cosines, sines, out, threads or default_threads()
        )

    def cc_cost(self, tables: F32, rows: I32, shifts: F64, *, threads: int = 0) -> F64:
        """See `tiltwise.kernels.api.Backend.cc_cost`."""
        return self._kernels.cc_cost(tables, rows, shifts, threads or default_threads())


def gather(slices: C64, weights: F32, matrices: F64, limits: F64, data: C128, weight: F64, threads: int) -> None:
    """See `tiltwise.kernels.gather.gather_slices`."""
    _native.gather(slices, weights, matrices, limits, data, weight, threads)


def builtin_backends() -> list[NativeBackend]:
    """Every backend compiled into the extension module, slowest first."""
    return [NativeBackend(kernels) for kernels in _native.builtin()]


def plugin_path(name: str) -> Path:
    """Where the plugin of a backend such as `cuda` would lie."""
    return PACKAGE / f"libtiltwise_{name.replace('-', '_')}.so"


def open_plugin(name: str) -> NativeBackend:
    """Load the plugin of a backend; `BackendUnavailable` if it is missing or does not fit."""
    return NativeBackend(_native.open_plugin(str(plugin_path(name))))


def build_info() -> dict[str, str | bool]:
    """How the extension module was built: `version`, `compiler`, `openmp`."""
    return _native.build_info()
