"""Types of the extension module.  Contracts: `tiltwise.kernels.api`."""

from __future__ import annotations

from tiltwise.kernels.api import C64, C128, F32, F64, I32, Bools

class Kernels:
    """A table of compiled kernels."""

    @property
    def name(self) -> str: ...
    @property
    def rough_score(self) -> bool: ...
    def unavailable_reason(self) -> str: ...
    def project(
        self, volume: C64, matrices: F32, frequencies: F32, radius: float, out: C64 | None, threads: int
    ) -> C64: ...
    def insert(
        self,
        slices: C64,
        weights: F32,
        matrices: F32,
        frequencies: F32,
        radius: float,
        data: C128,
        weight: F64,
        threads: int,
    ) -> None: ...
    def score(
        self,
        slices: C64,
        image: C64,
        power: F32,
        phases: C64,
        rows: I32 | None,
        columns: I32 | None,
        wanted: Bools | None,
        rough: bool,
        threads: int,
    ) -> tuple[F32, F32]: ...
    def posterior(
        self, log_likelihood: F32, log_prior_rotation: F32, log_prior_shift: F32, fraction: float, threads: int
    ) -> tuple[F32, tuple[float, int, float, int, float]]: ...
    def backproject(self, weights: F32, image: C64, power: F32, phases: C64, threads: int) -> tuple[C64, F32]: ...
    def shell_sums(self, a: C64, b: C64, weights: F32 | None, shells: I32, n_shells: int, threads: int) -> F64: ...
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
        threads: int,
    ) -> F64: ...
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
        threads: int,
    ) -> None: ...
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
        out: F32 | None,
        threads: int,
    ) -> tuple[F32, F64]: ...
    def cc_cost(self, tables: F32, rows: I32, shifts: F64, threads: int) -> F64: ...
    def phase_cost(self, matrices: F64, vectors: F64, basis: F64, parameters: F64, rows: I32, threads: int) -> F64: ...

def gather(slices: C64, weights: F32, matrices: F64, limits: F64, data: C128, weight: F64, threads: int) -> None: ...
def builtin() -> list[Kernels]: ...
def open_plugin(path: str) -> Kernels: ...
def build_info() -> dict[str, str | bool]: ...
