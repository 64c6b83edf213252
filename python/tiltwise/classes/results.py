"""What a classification leaves: maps, particles with classes and posteriors, model, `classes.json`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiltwise.classes.data import ClassData
from tiltwise.classes.final import ClassMap
from tiltwise.classes.options import ClassifyOptions
from tiltwise.classes.state import State
from tiltwise.em.results import IMPOSSIBLE, write_set
from tiltwise.exec import Job
from tiltwise.files import write_text
from tiltwise.io.class_files import ClassModel, ClassRow, write_class_model
from tiltwise.io.mrc import write_map
from tiltwise.io.refine_files import write_optimiser
from tiltwise.model import OptimisationSet
from tiltwise.model.poses import series_index

BINS = 20
"""Bins of the histogram of posteriors."""


def columns(optset: OptimisationSet, state: State) -> dict[str, Any]:
    """Columns of the particle file: RELION's, and the posterior of every class."""
    chosen, poses = state.posterior.max(axis=1), state.pose_probability
    evidence = np.where(np.isfinite(state.log_likelihood), state.log_likelihood, IMPOSSIBLE)
    return {
        "rlnGroupNumber": (1 + series_index(optset)).tolist(),
        "rlnClassNumber": state.classes.tolist(),
        "rlnLogLikeliContribution": evidence.tolist(),
        "rlnMaxValueProbDistribution": (chosen if poses is None else chosen * poses).tolist(),
        "tiltwiseClassPosterior": chosen.tolist(),
        "tiltwiseClassPosteriors": [np.round(row, 5) for row in state.posterior],
    }


def write_results(
    job: Job, data: ClassData, optset: OptimisationSet, state: State, maps: Sequence[ClassMap], shell: int
) -> dict[str, Path]:
    """Writes everything under RELION's names and returns paths."""
    options, pixel = data.options, data.pixel_size
    outputs: dict[str, Path] = {}
    for number, one in enumerate(maps, 1):
        outputs[f"class{number}"] = path = job.path(f"run_class{number:03d}.mrc")
        write_map(path, one.map, pixel)
        job.add_output(path, "DensityMap.mrc.relion.class3d")
        for half, density in enumerate(one.halves, 1):
            path = job.path(f"run_half{half}_class{number:03d}_unfil.mrc")
            write_map(path, density, pixel)
            job.add_output(path)
    for name in ("data", "model", "optimiser", "optimisation_set"):
        outputs[name] = job.path(f"run_{name}.star")
    write_set(outputs["data"], outputs["optimisation_set"], optset, columns(optset, state))
    counts = np.bincount(series_index(optset), minlength=len(optset.series)).tolist()
    rows = [
        ClassRow(outputs[f"class{k + 1}"], float(share), one.resolution_angstrom, one.fsc, options.group_of(k))
        for k, (share, one) in enumerate(zip(state.share, maps, strict=True))
    ]
    model = ClassModel(
        rows,
        data.box,
        pixel,
        shell,
        options.tau2_fudge,
        float(state.log_likelihood.sum()),
        float(state.posterior.max(axis=1).mean()),
        [series.name for series in optset.series],
        counts,
    )
    write_class_model(outputs["model"], model)
    write_optimiser(
        outputs["optimiser"],
        {
            "rlnOutputRootName": str(job.path("run")),
            "rlnModelStarFile": str(outputs["model"]),
            "rlnExperimentalDataStarFile": str(outputs["data"]),
            "rlnTomoTomogramsFile": str(optset.paths["tomograms"]),
            "rlnCurrentIteration": state.iteration,
            "rlnNumberOfIterations": options.iterations,
            "rlnRandomSeed": options.seed,
            "rlnParticleDiameter": data.diameter,
            "rlnDoSkipAlign": int(options.align == "none"),
            "rlnDoAutoRefine": 0,
            "rlnDoAutoSampling": 0,
            "rlnSolventMaskName": "None" if options.mask is None else str(options.mask),
            "rlnHasConverged": int(state.converged),
        },
    )
    outputs["classes"] = job.path("classes.json")
    write_text(outputs["classes"], json.dumps(summary(optset, state, maps, options), indent=1) + "\n")
    labels = {
        "data": "ParticleGroupMetadata.star.relion.class3d",
        "optimiser": "OptimiserData.star.relion.class3d",
        "optimisation_set": "TomoOptimisationSet.star.relion.class3d",
        "model": None,
        "classes": None,
    }
    for name, label in labels.items():
        job.add_output(outputs[name], label)
    return outputs


def by_tomogram(optset: OptimisationSet, state: State) -> NDArray[np.int64]:
    """(series, classes) particles of every class in every tilt series."""
    table = np.zeros((len(optset.series), len(state.share)), np.int64)
    np.add.at(table, (series_index(optset), state.classes - 1), 1)
    return table


def summary(
    optset: OptimisationSet, state: State, maps: Sequence[ClassMap], options: ClassifyOptions
) -> dict[str, Any]:
    """Contents of `classes.json`."""
    counts = np.bincount(state.classes - 1, minlength=len(state.share))
    certain = state.posterior.max(axis=1)
    table = by_tomogram(optset, state)
    return {
        "classes": [
            {
                "number": k + 1,
                "junk": k == options.classes,
                "symmetry": options.group_of(k),
                "died": k + 1 in state.dead,
                "share": float(state.share[k]),
                "particles": int(counts[k]),
                "expected_particles": float(state.posterior[:, k].sum()),
                "mean_posterior": float(certain[state.classes == k + 1].mean()) if counts[k] else None,
                "resolution_angstrom": one.resolution_angstrom,
            }
            for k, one in enumerate(maps)
        ],
        "first_guess": state.places,
        "iterations": state.history,
        "switch_rate": [row["switched"] for row in state.history],
        "expected_errors": float((1.0 - certain).sum()),
        "posterior_histogram": {
            "edges": np.linspace(0.0, 1.0, BINS + 1).round(4).tolist(),
            "particles": np.histogram(certain, BINS, (0.0, 1.0))[0].tolist(),
        },
        "tomograms": {series.name: row.tolist() for series, row in zip(optset.series, table, strict=True)},
    }
