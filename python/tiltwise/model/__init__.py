"""Frozen data objects: tilt series, particles, optics groups, optimisation sets."""

from __future__ import annotations

from tiltwise.model.optics_group import OpticsGroup
from tiltwise.model.optimisation_set import OptimisationSet
from tiltwise.model.particles import Particles
from tiltwise.model.tilt_series import TiltSeries
from tiltwise.model.views import Views, WholeView

__all__ = ["OpticsGroup", "OptimisationSet", "Particles", "TiltSeries", "Views", "WholeView"]
