"""Memory of the evidence about CTFs, planned before images are read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tiltwise.ctf.evidence import CHUNK_BYTES, TERMS
from tiltwise.errors import ResourceError
from tiltwise.exec.memory import free_memory_bytes

PROGRAM = 250 << 20
"""Interpreter, libraries and buffers of the system."""
USUAL = 32e9
"""Where nobody knows how much is free."""
WORKING = 7
"""Sums of all particles, of both halves and of the block at hand, and what fits make of them; measured."""


def allowed_bytes(memory_gb: float | None) -> int:
    """What --memory allows, else half of what is free."""
    return int(memory_gb * 1e9 if memory_gb is not None else (free_memory_bytes() or USUAL) / 2)


def pixels_within(radius: float) -> int:
    """Fourier pixels of an image with |k| < radius, to one in a hundred."""
    return int(np.pi * radius**2 / 2)


@dataclass(frozen=True, slots=True)
class EvidenceMemory:
    """What decides how much the evidence of one tilt series takes."""

    tilts: int
    """of the largest series"""
    folds: int
    """of each half set: blocks of particles that are judged by themselves"""
    optics: int
    """optics groups in one series"""
    terms: int
    """kept of blocks"""
    references: int
    """bytes"""
    limit: int
    """bytes"""

    def needed(self, pixels: int, judged: int) -> int:
        """Bytes, references included, with `judged` blocks of particles in each half set."""
        blocks = 2 * judged * self.optics
        evidence = self.tilts * pixels * (4 * self.terms * blocks + 8 * TERMS * WORKING)
        return PROGRAM + self.references + 3 * CHUNK_BYTES + evidence

    def judged(self, pixels: int) -> int:
        """Blocks of particles in each half set that fit, at most one for every fold.

        Raises
        ------
        ResourceError
            if not even one fits.
        """
        for count in range(self.folds, 0, -1):
            if self.needed(pixels, count) <= self.limit:
                return count
        raise ResourceError(
            "not enough memory for the evidence of a tilt series",
            where="--memory",
            expected=f"{self.needed(pixels, 1) / 1e9:.1f} GB for {self.tilts} tilts and {pixels} Fourier pixels",
            found=f"{self.limit / 1e9:.1f} GB",
            fix="give more with --memory, use less of the images with --resolution, or a smaller --b or larger --bin",
        )
