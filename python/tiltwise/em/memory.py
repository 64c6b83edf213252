"""Memory of a refinement, planned before it starts."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tiltwise.em.expectation import BATCH_BYTES
from tiltwise.errors import ResourceError
from tiltwise.exec.memory import free_memory_bytes

_PROGRAM = 250 << 20
"""Interpreter, libraries and buffers of the system."""
_UNKNOWN = 1 << 30
"""For images to keep where nobody knows how much is free."""

# Bytes per voxel of a half-complex padded volume.
_ACCUMULATOR = 24
"""complex double numerator, double denominator"""
_REFERENCE = 8
_SYMMETRISING = 100
"""a second copy of one half's sums, single precision ones to interpolate in, and the points where; measured"""
_LEAVING_OUT = 36
"""the sums without a fold, and the share of it that counts"""
_SOLVING = 64
"""denominator, spectrum in double and single precision, and its transform"""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Bytes a refinement will take at most."""

    volumes: int
    """accumulators of both halves and what solving one map, or a unit of particles, takes besides"""
    batch: int
    """images and likelihoods of particles that are worked on at a time"""
    images: int
    """images that are kept between iterations, not more than there are"""
    workers: int
    """what processes of workers take: references, sums and images of two units each"""
    folds: int
    """folds of each half, with sums of their own; 1 without cross-fitted references"""
    limit: int | None
    """allowed by --memory, else half of what is free"""

    @property
    def total(self) -> int:
        """Everything together."""
        return _PROGRAM + self.volumes + self.batch + self.workers + self.images

    def fewer(self, wanted: int, *, began: bool) -> str:
        """What to say where `wanted` folds do not fit; a run that `began` with them goes on with them."""
        kept = f"{self.folds} folds" if self.folds > 1 else "no folds"
        if began:
            return f"the memory allowed holds sums of {kept}: the run began with {wanted} and needs more for them"
        return f"the memory allowed holds sums of {kept} instead of {wanted}: results will differ slightly"

    def __str__(self) -> str:
        allowed = "" if self.limit is None else f" of {self.limit / 1e9:.1f} GB allowed"
        return (
            f"memory: at most {self.total / 1e9:.1f} GB{allowed} "
            f"(volumes {self.volumes / 1e9:.2f} GB, batches of images {self.batch / 1e9:.2f} GB, "
            f"images kept {self.images / 1e9:.2f} GB"
            + (f", workers {self.workers / 1e9:.2f} GB)" if self.workers else ")")
        )


def plan_refine(
    box: int,
    padding: int,
    memory_gb: float | None,
    *,
    symmetric: bool = False,
    folds: int = 1,
    workers: int = 0,
    images: int = 0,
    others: int = 0,
) -> MemoryPlan:
    """Plan for maps of `box` voxels on grids padded `padding` times, with as many of `folds` as fit, `workers` in
    processes of their own on this machine, `images` bytes of images worth keeping, and `others` of other volumes.

    Raises
    ------
    ResourceError
        if volumes and a batch of images do not fit the memory allowed.
    """
    padded = padding * box
    voxels = padded * padded * (padded // 2 + 1)
    besides = max(_SOLVING, _ACCUMULATOR + 2 * _REFERENCE, _SYMMETRISING if symmetric else 0)

    of_workers = workers * (_PROGRAM + BATCH_BYTES + voxels * (2 * _ACCUMULATOR + 2 * _REFERENCE))

    def volumes(folds: int) -> int:
        totals = 2 * _ACCUMULATOR + _LEAVING_OUT if folds > 1 else 0
        return voxels * (2 * folds * _ACCUMULATOR + totals + besides) + others

    if memory_gb is not None:
        limit: int | None = int(memory_gb * 1e9)
    else:
        free = free_memory_bytes()
        limit = None if free is None else free // 2
    plans = (MemoryPlan(volumes(k), BATCH_BYTES, 0, of_workers, k, limit) for k in range(max(folds, 1), 0, -1))
    plan = next(plan for plan in plans if plan.folds == 1 or limit is None or plan.total <= limit)
    if limit is not None and plan.total > limit:
        raise ResourceError(
            "not enough memory",
            where="--memory" if memory_gb is not None else "this machine",
            expected=f"at least {plan.total / 1e9:.1f} GB for maps of {box} voxels",
            found=f"{limit / 1e9:.1f} GB" + ("" if memory_gb is not None else ", half of what is free"),
            fix="give more with --memory, or use a smaller --crop or larger --bin",
        )
    return replace(plan, images=min(images, _UNKNOWN if limit is None else limit - plan.total))
