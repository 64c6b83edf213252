"""Memory of an alignment, planned before images are read."""

from __future__ import annotations

from dataclasses import dataclass

from tiltwise.errors import ResourceError
from tiltwise.exec.memory import free_memory_bytes
from tiltwise.maps.cross_fit import affordable_folds, bytes_of_folds

PROGRAM = 300 << 20
"""Interpreter, libraries, and images that are worked on."""
USUAL = 16 << 30
"""Where nobody knows how much is free."""
COPIES = 2
"""Of the correlations of one series while it is fitted: blurred, and on the way there."""


@dataclass(frozen=True, slots=True)
class AlignMemory:
    """Bytes an alignment will take at most."""

    folds: int
    """of each half set"""
    references: int
    """sums and references of all folds"""
    correlations: int
    """tables of all series, and copies of those that are fitted"""
    images: int
    """images that may be kept from one round to the next"""
    limit: int
    """allowed by --memory, else half of what is free"""

    def __str__(self) -> str:
        kept = self.limit - PROGRAM - self.references - self.correlations - self.images
        return (
            f"memory: at most {(self.limit - max(kept, 0)) / 1e9:.1f} GB of {self.limit / 1e9:.1f} GB allowed "
            f"(references {self.references / 1e9:.2f} GB, correlations {self.correlations / 1e9:.2f} GB, "
            f"images kept {self.images / 1e9:.2f} GB)"
        )


def plan_align(
    memory_gb: float | None,
    box: int,
    folds: int,
    images: list[int],
    table_bytes: int,
    image_bytes: int,
    at_once: int,
) -> AlignMemory:
    """Plan for references of `box` voxels in as many of `folds` as fit.

    `images` is how many there are in each series; each takes `table_bytes` of correlations, and `image_bytes` if it is
    kept.  `at_once` series are fitted at a time.

    Raises
    ------
    ResourceError
        if correlations and references of two folds do not fit.
    """
    limit = int(memory_gb * 1e9) if memory_gb is not None else (free_memory_bytes() or USUAL) // 2
    correlations = table_bytes * (sum(images) + COPIES * sum(sorted(images)[-at_once:]))
    left = limit - PROGRAM - correlations
    least = bytes_of_folds(box, min(folds, 2))
    if left < least:
        raise ResourceError(
            "not enough memory for references and correlations",
            where="--memory" if memory_gb is not None else "this machine",
            expected=f"at least {(limit - left + least) / 1e9:.1f} GB, {correlations / 1e9:.1f} GB for correlations",
            found=f"{limit / 1e9:.1f} GB" + ("" if memory_gb is not None else ", half of what is free"),
            fix="give more with --memory, a smaller --range or --crop, a larger --bin, or align fewer series at a time",
        )
    fit = affordable_folds(box, folds, left) if folds > 1 else 1
    references = bytes_of_folds(box, fit)
    return AlignMemory(fit, references, correlations, min(left - references, image_bytes * sum(images)), limit)
