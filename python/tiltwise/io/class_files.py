"""The `_model.star` of a classification, as relion_refine names and fills it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.io.paths import path_text
from tiltwise.io.refine_files import list_block
from tiltwise.io.star import StarBlock, StarDocument, write_star

Path = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class ClassRow:
    """One class of a model file."""

    map: Path
    share: float
    """of the particles"""
    resolution_angstrom: float
    fsc: NDArray[np.float64]
    """(N // 2 + 1,) of its half maps"""
    symmetry: str
    """name of the point group"""


@dataclass(frozen=True, slots=True)
class ClassModel:
    """Contents of a `_model.star` with many classes."""

    classes: Sequence[ClassRow]
    box: int
    pixel_size_angstrom: float
    radius_shells: int
    """shells that were compared"""
    tau2_fudge: float
    log_likelihood: float
    max_probability: float
    series: Sequence[str]
    particles: Sequence[int]
    """of every series"""


def write_class_model(path: Path, model: ClassModel) -> None:
    """Write a `_model.star`: general values, classes, the FSC of each, groups.

    Raises
    ------
    OutputError
        if the file cannot be written.
    """
    best = min(one.resolution_angstrom for one in model.classes)
    general = list_block(
        "model_general",
        {
            "rlnReferenceDimensionality": 3,
            "rlnDataDimensionality": 2,
            "rlnOriginalImageSize": model.box,
            "rlnCurrentResolution": best,
            "rlnCurrentImageSize": min(2 * model.radius_shells, model.box),
            "rlnPaddingFactor": 2.0,
            "rlnPixelSize": model.pixel_size_angstrom,
            "rlnNrClasses": len(model.classes),
            "rlnNrBodies": 1,
            "rlnNrGroups": len(model.series),
            "rlnTau2FudgeFactor": model.tau2_fudge,
            "rlnNormCorrectionAverage": 1.0,
            "rlnLogLikelihood": model.log_likelihood,
            "rlnAveragePmax": model.max_probability,
        },
    )
    classes = StarBlock("model_classes", "loop", {})
    classes.set_text("rlnReferenceImage", [path_text(one.map, path) for one in model.classes])
    classes.set_floats("rlnClassDistribution", [one.share for one in model.classes])
    classes.set_floats("rlnEstimatedResolution", [one.resolution_angstrom for one in model.classes])
    classes.set_text("rlnSymmetryGroup", [one.symmetry for one in model.classes])
    blocks = [general, classes]
    length = model.box * model.pixel_size_angstrom
    for number, one in enumerate(model.classes, 1):
        index = np.arange(len(one.fsc))
        block = StarBlock(f"model_class_{number}", "loop", {})
        block.set_integers("rlnSpectralIndex", index)
        block.set_floats("rlnResolution", index / length)
        block.set_floats("rlnAngstromResolution", np.append(999.0, length / index[1:]))
        block.set_floats("rlnGoldStandardFsc", one.fsc)
        blocks.append(block)
    groups = StarBlock("model_groups", "loop", {})
    groups.set_integers("rlnGroupNumber", range(1, len(model.series) + 1))
    groups.set_text("rlnGroupName", list(model.series))
    groups.set_integers("rlnGroupNrParticles", model.particles)
    groups.set_floats("rlnGroupScaleCorrection", [1.0] * len(model.series))
    write_star(path, StarDocument([*blocks, groups]))
