"""The `reference` backend: every kernel in readable float64 NumPy.  It is the oracle of all others."""

from __future__ import annotations

from tiltwise.kernels.reference.backproject import backproject
from tiltwise.kernels.reference.correlation import cc_cost, cc_table
from tiltwise.kernels.reference.curvature import curvature
from tiltwise.kernels.reference.phasefit import condense, phase_cost
from tiltwise.kernels.reference.posterior import posterior
from tiltwise.kernels.reference.score import score
from tiltwise.kernels.reference.shell_sums import shell_sums
from tiltwise.kernels.reference.slices import insert, project


class ReferenceBackend:
    """Float64 NumPy implementation of `tiltwise.kernels.api.Backend`."""

    name = "reference"
    rough_score = False
    project = staticmethod(project)
    insert = staticmethod(insert)
    score = staticmethod(score)
    posterior = staticmethod(posterior)
    backproject = staticmethod(backproject)
    shell_sums = staticmethod(shell_sums)
    curvature = staticmethod(curvature)
    condense = staticmethod(condense)
    phase_cost = staticmethod(phase_cost)
    cc_table = staticmethod(cc_table)
    cc_cost = staticmethod(cc_cost)


__all__ = [
    "ReferenceBackend",
    "backproject",
    "cc_cost",
    "cc_table",
    "condense",
    "curvature",
    "insert",
    "phase_cost",
    "posterior",
    "project",
    "score",
    "shell_sums",
]
