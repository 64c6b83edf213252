"""What an initial model leaves: map, half maps, particles, and `initial.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiltwise.em.estimates import PoseEstimate
from tiltwise.em.results import posterior_columns, with_poses, write_set
from tiltwise.exec.protocols import Scalar
from tiltwise.files import write_text
from tiltwise.geometry.symmetry import symmetry_matrices
from tiltwise.initial.choice import AGREE
from tiltwise.initial.engine import Engine, Sums
from tiltwise.initial.state import Frame, Start, State
from tiltwise.io.mrc import write_map
from tiltwise.maps.options import ImageOptions
from tiltwise.maps.point_groups import Axes, rank_groups
from tiltwise.maps.spectra import half_maps, joined_fsc, last_shell_above, prior_from_fsc
from tiltwise.maps.volumes import solve_map
from tiltwise.model import OptimisationSet
from tiltwise.spectral.filters import low_pass
from tiltwise.spectral.fsc import resolution_angstrom

LEAST_SCORE, SHARE_OF_BEST = 0.6, 0.9
"""Score a point group must have to be suggested, and its share of the best one."""


@dataclass(frozen=True, slots=True)
class InitialModelResult:
    """Result of `tiltwise initial-model`."""

    map: NDArray[np.float32]
    """(N, N, N), low-passed at its resolution"""
    halves: tuple[NDArray[np.float32], NDArray[np.float32]]
    """unfiltered"""
    fsc: NDArray[np.float64]
    """of the half maps inside the sphere of the particle; they share their data up to `shared_angstrom`"""
    resolution_angstrom: float
    shared_angstrom: float
    pixel_size: float
    images: ImageOptions
    """boxes that were used"""
    optset: OptimisationSet
    estimates: list[PoseEstimate]
    starts: list[Start]
    film: list[Frame]
    choice: Mapping[str, Any]
    groups: list[Axes]
    """of common point groups, best first; empty unless asked for"""
    history: list[dict[str, Scalar]]
    outputs: Mapping[str, Path]

    @property
    def starts_that_agree(self) -> int:
        """With the one that went on, itself included."""
        return sum(1 for score in self.choice["agreement"] if score >= self.choice["agree_from"])

    @property
    def doubtful(self) -> bool:
        """Whether none of several starts has found the same map as the one that went on."""
        return len(self.starts) > 1 and self.starts_that_agree == 1

    @property
    def hand(self) -> str:
        """What is known of the hand of the map."""
        if self.doubtful:
            return "in doubt, as the map is"
        return "as the tilt geometry has it" if self.choice["hand_determined"] else "not determined"

    @property
    def suggested_group(self) -> str | None:
        """The largest group that the map has about as well as any; None if it has none."""
        return suggested(self.groups)


def suggested(groups: list[Axes]) -> str | None:
    """See `InitialModelResult.suggested_group`; of groups with their best score first."""
    least = max(LEAST_SCORE, SHARE_OF_BEST * groups[0].score) if groups else 1.0
    kept = [axes.group for axes in groups if axes.score >= least]
    return max(kept, key=lambda name: len(symmetry_matrices(name))) if kept else None


def write_results(engine: Engine, state: State, sums: Sums) -> InitialModelResult:
    """Maps of the sums over all particles, and the files."""
    assert state.poses is not None
    job, pixel = engine.job, engine.pixel_size
    first, second, _ = half_maps(sums.accumulators[1], sums.accumulators[2])
    curve = engine.half_fsc.curve(first, second, 0)
    total = sums.accumulators[1] + sums.accumulators[2]
    density = solve_map(total, prior_from_fsc(total, joined_fsc(curve))) * engine.mask
    resolution = resolution_angstrom(curve, engine.box, pixel, 0.143)
    density = np.asarray(low_pass(density, pixel, max(resolution, 2.0 * pixel)), np.float32)
    shared = engine.shells.box_angstrom / engine.shells.of_start
    groups: list[Axes] = []
    if engine.options.find_symmetry:
        shells = max(last_shell_above(curve), engine.shells.of_start)
        groups = rank_groups(density, shells, engine.backend)
    optset = with_poses(engine.optset, state.poses, engine.halves)
    estimates = [sums.estimates[i] for i in range(engine.count)]
    names = {
        "map": ("initial_model.mrc", "DensityMap.mrc.relion.initialmodel"),
        "half1": ("initial_model_half1_unfil.mrc", "DensityMap.mrc.relion.halfmap.initialmodel"),
        "half2": ("initial_model_half2_unfil.mrc", "DensityMap.mrc.relion.halfmap.initialmodel"),
        "particles": ("run_data.star", "ParticleGroupMetadata.star.relion.initialmodel"),
        "optimisation_set": ("run_optimisation_set.star", "TomoOptimisationSet.star.relion.initialmodel"),
        "summary": ("initial.json", None),
    }
    outputs = {key: job.path(name) for key, (name, _) in names.items()}
    with job.timing("files"):
        for key, values in (("map", density), ("half1", first), ("half2", second)):
            write_map(outputs[key], values, pixel)
        write_set(outputs["particles"], outputs["optimisation_set"], optset, posterior_columns(optset, estimates))
        summary = {
            "resolution_angstrom": resolution,
            "shared_angstrom": shared,
            "pixel_size_angstrom": pixel,
            "box_px": engine.box,
            "symmetry": engine.options.symmetry,
            "particles": engine.count,
            **state.choice,
            "evidence_of_starts": [start.evidence for start in state.starts],
            "fsc": curve.tolist(),
            "point_groups": {axes.group: axes.score for axes in groups},
            "suggested_group": suggested(groups),
            "history": state.history,
        }
        write_text(outputs["summary"], json.dumps(summary, indent=1) + "\n")
    for key, (_, label) in names.items():
        job.add_output(outputs[key], label)
    job.metric("resolution_angstrom", resolution)
    job.metric("starts_that_agree", sum(1 for score in state.choice["agreement"] if score >= AGREE))
    return InitialModelResult(
        density,
        (first, second),
        curve,
        resolution,
        shared,
        pixel,
        engine.chosen,
        optset,
        estimates,
        state.starts,
        state.film,
        state.choice,
        groups,
        state.history,
        outputs,
    )
