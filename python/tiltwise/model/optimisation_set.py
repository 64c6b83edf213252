"""Optimisation set: tilt series, particles and their optics, and the documents they were read from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.model.optics_group import OpticsGroup
from tiltwise.model.particles import Particles
from tiltwise.model.tilt_series import TiltSeries


@dataclass(frozen=True, slots=True)
class OptimisationSet:
    """What every stage takes and returns.

    `documents` carries the STAR documents the set was read from; only `tiltwise.io` looks inside, to write
    back every column and block it does not know.
    """

    series: tuple[TiltSeries, ...]
    particles: Particles
    optics: tuple[OpticsGroup, ...]
    trajectories: dict[str, NDArray[np.float64]]
    """particle name -> (F, 3) displacement in Å along tomogram axes, tilt row order; empty without motion"""
    stacks_are_2d: bool
    documents: object
    paths: dict[str, str]
    """'optimisation_set', 'tomograms', 'particles', 'trajectories', 'mask', 'half1', 'half2', 'fsc' where known"""
