"""What shows a particle: tilt images, or a pseudo-subtomogram."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Views(Protocol):
    """What shows a particle: the tilt images of a series, or the one view of a pseudo-subtomogram."""

    @property
    def name(self) -> str:
        """Name of the tilt series."""
        ...

    @property
    def projection(self) -> NDArray[np.float64]:
        """(F, 4, 4) of which the rows of the image's axes are used: two, or three of a pseudo-subtomogram."""
        ...

    @property
    def n_tilts(self) -> int:
        """F"""
        ...


@dataclass(frozen=True, slots=True)
class WholeView:
    """Pseudo-subtomograms of a tilt series: one view that keeps all three axes."""

    name: str

    @property
    def projection(self) -> NDArray[np.float64]:
        """(1, 4, 4) identity"""
        return np.eye(4)[None]

    @property
    def n_tilts(self) -> int:
        """1"""
        return 1
