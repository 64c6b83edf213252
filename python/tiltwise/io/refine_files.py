"""The `_model.star`, `_sampling.star` and `_optimiser.star` of a refinement, as relion_refine names and fills them.

RELION divides transforms by the number of pixels and counts the power of one real component.  A power `p` of
unitary transforms of boxes of N pixels, as tiltwise has them, is `p / (2 N^2)` in these files.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.io.paths import path_text
from tiltwise.io.star import StarBlock, StarDocument, write_star

Path = str | os.PathLike[str]

_NO_LIMIT = 999.0
"""RELION's value for a resolution or ratio without bound."""


@dataclass(frozen=True, slots=True)
class ShellTable:
    """What is known of a map in every shell 0..N // 2, each `(N // 2 + 1,)`; powers in the units of tiltwise."""

    fsc: NDArray[np.float64]
    signal_to_noise: NDArray[np.float64]
    signal_power: NDArray[np.float64]
    """tau^2"""
    noise_power: NDArray[np.float64]
    """of the map, one over the weight of its voxels"""
    completeness: NDArray[np.float64]
    """share of the voxels in which there is more signal than noise"""


@dataclass(frozen=True, slots=True)
class Model:
    """Contents of a `_model.star` with one class."""

    map: Path
    box: int
    pixel_size_angstrom: float
    resolution_angstrom: float
    radius_shells: int
    """shells that were used"""
    padding: float
    tau2_fudge: float
    offset_sigma_angstrom: float
    angular_sigma_deg: float | None
    """width of the angular prior; None in a global search"""
    log_likelihood: float
    max_probability: float
    accuracy_deg: float
    accuracy_angstrom: float
    shells: ShellTable
    series: Sequence[str]
    particles: Sequence[int]
    """of every series"""
    scale: Sequence[float]
    """of every series"""
    noise_power: Sequence[NDArray[np.float64]]
    """(F, S) of every series"""
    optics: Sequence[NDArray[np.intp]]
    """indices of the series of every optics group"""
    direction_share: NDArray[np.float64]
    """(D,) share of the particles in every direction of the sampling file"""


@dataclass(frozen=True, slots=True)
class Sampling:
    """Contents of a `_sampling.star`."""

    order: int
    first_order: int
    symmetry: str
    psi_step_deg: float
    offset_range_angstrom: float
    offset_step_angstrom: float
    directions_deg: NDArray[np.float64]
    """(D, 2) rot and tilt"""


def write_model(path: Path, model: Model) -> None:
    """Write a `_model.star`.

    Noise spectra are there twice: the mean over the tilts of every optics group, where RELION looks for it, and
    every tilt of every series in blocks `model_tilt_noise_N` of our own, N as in `model_groups`.

    Raises
    ------
    OutputError
        if the file cannot be written.
    """
    unit = 1.0 / (2.0 * model.box**2)
    local = model.angular_sigma_deg is not None
    sigma = model.angular_sigma_deg if model.angular_sigma_deg is not None else 0.0
    general = list_block(
        "model_general",
        {
            "rlnReferenceDimensionality": 3,
            "rlnDataDimensionality": 2,
            "rlnOriginalImageSize": model.box,
            "rlnCurrentResolution": model.resolution_angstrom,
            "rlnCurrentImageSize": min(2 * model.radius_shells, model.box),
            "rlnPaddingFactor": model.padding,
            "rlnIsHelix": 0,
            "rlnFourierSpaceInterpolator": 1,
            "rlnMinRadiusNnInterpolation": 10,
            "rlnPixelSize": model.pixel_size_angstrom,
            "rlnNrClasses": 1,
            "rlnNrBodies": 1,
            "rlnNrGroups": len(model.series),
            "rlnNrOpticsGroups": len(model.optics),
            "rlnTau2FudgeFactor": model.tau2_fudge,
            "rlnNormCorrectionAverage": 1.0,
            "rlnSigmaOffsetsAngst": model.offset_sigma_angstrom,
            "rlnOrientationalPriorMode": int(local),
            "rlnSigmaPriorRotAngle": sigma,
            "rlnSigmaPriorTiltAngle": sigma,
            "rlnSigmaPriorPsiAngle": sigma,
            "rlnLogLikelihood": model.log_likelihood,
            "rlnAveragePmax": model.max_probability,
        },
    )
    used = np.arange(len(model.shells.fsc)) <= model.radius_shells
    completeness = float(model.shells.completeness[used].mean())
    classes = StarBlock("model_classes", "loop", {})
    classes.set_text("rlnReferenceImage", [path_text(model.map, path)])
    for label, value in (
        ("rlnClassDistribution", 1.0),
        ("rlnAccuracyRotations", model.accuracy_deg),
        ("rlnAccuracyTranslationsAngst", model.accuracy_angstrom),
        ("rlnEstimatedResolution", model.resolution_angstrom),
        ("rlnOverallFourierCompleteness", completeness),
    ):
        classes.set_floats(label, [value])
    shells = _shells("model_class_1", model, len(model.shells.fsc))
    for label, values in (
        ("rlnSsnrMap", np.minimum(model.shells.signal_to_noise, _NO_LIMIT)),
        ("rlnGoldStandardFsc", model.shells.fsc),
        ("rlnFourierCompleteness", model.shells.completeness),
        ("rlnReferenceSigma2", model.shells.noise_power * unit),
        ("rlnReferenceTau2", model.shells.signal_power * unit),
    ):
        shells.set_floats(label, values)
    groups = StarBlock("model_groups", "loop", {})
    groups.set_integers("rlnGroupNumber", range(1, len(model.series) + 1))
    groups.set_text("rlnGroupName", list(model.series))
    groups.set_integers("rlnGroupNrParticles", model.particles)
    groups.set_floats("rlnGroupScaleCorrection", model.scale)
    blocks = [general, classes, shells, groups]
    for number, members in enumerate(model.optics, 1):
        block = _shells(f"model_optics_group_{number}", model, len(model.shells.fsc))
        tilts = np.concatenate([model.noise_power[i] for i in members])
        block.set_floats("rlnSigma2Noise", tilts.mean(axis=0) * unit)
        blocks.append(block)
    directions = StarBlock("model_pdf_orient_class_1", "loop", {})
    directions.set_floats("rlnOrientationDistribution", model.direction_share)
    blocks.append(directions)
    for number, spectra in enumerate(model.noise_power, 1):
        block = _shells(f"model_tilt_noise_{number}", model, len(model.shells.fsc))
        for tilt, spectrum in enumerate(spectra, 1):
            block.set_floats(f"tiltwiseSigma2NoiseTilt{tilt:03d}", spectrum * unit)
        blocks.append(block)
    write_star(path, StarDocument(blocks))


def write_sampling(path: Path, sampling: Sampling) -> None:
    """Write a `_sampling.star`.

    Raises
    ------
    OutputError
        if the file cannot be written.
    """
    grid = {
        "rlnPsiStep": sampling.psi_step_deg,
        "rlnOffsetRange": sampling.offset_range_angstrom,
        "rlnOffsetStep": sampling.offset_step_angstrom,
    }
    general = list_block(
        "sampling_general",
        {
            "rlnIs3DSampling": 1,
            "rlnIs3DTranslationalSampling": 1,
            "rlnHealpixOrder": sampling.order,
            "rlnSymmetryGroup": sampling.symmetry,
            "rlnTiltAngleLimit": -91.0,
            **grid,
            "rlnHelicalOffsetStep": -1.0,
            # tiltwise turns its grid by a rotation that these two numbers cannot say
            "rlnSamplingPerturbInstance": 0.0,
            "rlnSamplingPerturbFactor": 0.5,
            "rlnHealpixOrderOriginal": sampling.first_order,
            **{f"{label}Original": value for label, value in grid.items()},
        },
    )
    directions = StarBlock("sampling_directions", "loop", {})
    directions.set_floats("rlnAngleRot", sampling.directions_deg[:, 0])
    directions.set_floats("rlnAngleTilt", sampling.directions_deg[:, 1])
    write_star(path, StarDocument([general, directions]))


def write_optimiser(path: Path, values: Mapping[str, str | float]) -> None:
    """Write an `_optimiser.star`: `values` by label, and RELION's neutral value for everything tiltwise has not.

    Raises
    ------
    OutputError
        if the file cannot be written.
    """
    unknown = sorted(set(values) - set(OPTIMISER_LABELS))
    if unknown:
        raise ValueError(f"not a label of an optimiser file: {', '.join(unknown)}")
    write_star(path, StarDocument([list_block("optimiser_general", {**OPTIMISER_LABELS, **values})]))


OPTIMISER_LABELS: dict[str, str | float] = {
    "rlnOutputRootName": "run",
    "rlnModelStarFile": "None",
    "rlnModelStarFile2": "None",
    "rlnExperimentalDataStarFile": "None",
    "rlnTomoTomogramsFile": "",
    "rlnTomoTrajectoriesFile": "",
    "rlnOrientSamplingStarFile": "None",
    "rlnCurrentIteration": 0,
    "rlnNumberOfIterations": 999,
    "rlnDoSplitRandomHalves": 1,
    "rlnJoinHalvesUntilThisResolution": -1.0,
    "rlnAdaptiveOversampleOrder": 1,
    "rlnAdaptiveOversampleFraction": 0.999,
    "rlnRandomSeed": 1,
    "rlnParticleDiameter": -1.0,
    "rlnWidthMaskEdge": 5,
    "rlnDoZeroMask": 1,
    "rlnDoSolventFlattening": 1,
    "rlnDoSolventFscCorrection": 0,
    "rlnSolventMaskName": "None",
    "rlnSolventMask2Name": "None",
    "rlnBodyStarFile": "None",
    "rlnTauSpectrumName": "None",
    "rlnMaximumCoarseImageSize": -1,
    "rlnHighresLimitExpectation": -1.0,
    "rlnLowresLimitExpectation": -1.0,
    "rlnIncrementImageSize": 10,
    "rlnDoMapEstimation": 1,
    "rlnDoFastSubsetOptimisation": 0,
    "rlnDoExternalReconstruct": 0,
    "rlnDoBlush": 0,
    "rlnBlushNoSpectralTrailing": 0,
    "rlnDoGradientRefine": 0,
    "rlnDoStochasticGradientDescent": 0,
    "rlnGradEmIters": 0,
    "rlnGradHasConverged": 0,
    "rlnGradCurrentStepsize": 0.0,
    "rlnGradSubsetOrder": 0,
    "rlnGradSuspendFinerSamplingIter": -1,
    "rlnGradSuspendLocalSamplingIter": -1,
    "rlnSgdInitialIterations": 0,
    "rlnSgdFinalIterations": 0,
    "rlnSgdInBetweenIterations": 0,
    "rlnSgdInitialIterationsFraction": 0.3,
    "rlnSgdFinalIterationsFraction": 0.2,
    "rlnSgdMinimumResolution": 20.0,
    "rlnSgdInitialResolution": -1.0,
    "rlnSgdFinalResolution": -1.0,
    "rlnSgdInitialSubsetSize": -1,
    "rlnSgdFinalSubsetSize": -1,
    "rlnSgdMuFactor": 0.0,
    "rlnSgdSigma2FudgeInitial": 1.0,
    "rlnSgdSigma2FudgeHalflife": -1,
    "rlnSgdSkipAnneal": 0,
    "rlnSgdClassInactivityThreshold": 0.0,
    "rlnSgdSubsetSize": -1,
    "rlnSgdWriteEverySubset": 10,
    "rlnSgdMaxSubsets": -1,
    "rlnSgdStepsize": -1.0,
    "rlnSgdStepsizeScheme": "",
    "rlnTau2FudgeScheme": "",
    "rlnTau2FudgeArg": -1.0,
    "rlnMaximumSignificantPoses": -1,
    "rlnDoAutoRefine": 1,
    "rlnDoAutoSampling": 1,
    "rlnAutoLocalSearchesHealpixOrder": 4,
    "rlnNumberOfIterWithoutResolutionGain": 0,
    "rlnBestResolutionThusFar": 0.0,
    "rlnNumberOfIterWithoutChangingAssignments": 0,
    "rlnDoSkipAlign": 0,
    "rlnDoSkipRotate": 0,
    "rlnOverallAccuracyRotations": 0.0,
    "rlnOverallAccuracyTranslationsAngst": 0.0,
    "rlnChangesOptimalOrientations": 0.0,
    "rlnChangesOptimalOffsets": 0.0,
    "rlnChangesOptimalClasses": 0.0,
    "rlnSmallestChangesOrientations": 999.0,
    "rlnSmallestChangesOffsets": 999.0,
    "rlnSmallestChangesClasses": 9999999,
    "rlnLocalSymmetryFile": "None",
    "rlnDoHelicalRefine": 0,
    "rlnIgnoreHelicalSymmetry": 0,
    "rlnFourierMask": "None",
    "rlnHelicalTwistInitial": 0.0,
    "rlnHelicalRiseInitial": 0.0,
    "rlnHelicalCentralProportion": 0.3,
    "rlnNrHelicalNStart": 1,
    "rlnHelicalMaskTubeInnerDiameter": -1.0,
    "rlnHelicalMaskTubeOuterDiameter": -1.0,
    "rlnHelicalSymmetryLocalRefinement": 0,
    "rlnHelicalSigmaDistance": -1.0,
    "rlnHelicalKeepTiltPriorFixed": 0,
    "rlnHasConverged": 0,
    "rlnHasHighFscAtResolLimit": 0,
    "rlnHasLargeSizeIncreaseIterationsAgo": 0,
    "rlnDoCorrectNorm": 0,
    "rlnDoCorrectScale": 0,
    "rlnDoCorrectCtf": 1,
    "rlnDoCenterClasses": 0,
    "rlnDoIgnoreCtfUntilFirstPeak": 0,
    "rlnCtfDataArePhaseFlipped": 0,
    "rlnDoOnlyFlipCtfPhases": 0,
    "rlnRefsAreCtfCorrected": 1,
    "rlnFixSigmaNoiseEstimates": 0,
    "rlnFixSigmaOffsetEstimates": 0,
    "rlnMaxNumberOfPooledParticles": 1,
    "rlnOffsetRangeX": -1.0,
    "rlnOffsetRangeY": -1.0,
    "rlnOffsetRangeZ": -1.0,
}
"""labels of RELION 3.1 to 5 in RELION's order, with the value each has where a feature is not used"""


def _shells(name: str, model: Model, count: int) -> StarBlock:
    """A loop that begins with RELION's three columns for shells."""
    block = StarBlock(name, "loop", {})
    index = np.arange(count)
    length = model.box * model.pixel_size_angstrom
    block.set_integers("rlnSpectralIndex", index)
    block.set_floats("rlnResolution", index / length)
    block.set_floats("rlnAngstromResolution", np.append(_NO_LIMIT, length / index[1:]))
    return block


def list_block(name: str, values: Mapping[str, str | float]) -> StarBlock:
    """A block of single values."""
    block = StarBlock(name, "list", {})
    for label, value in values.items():
        if isinstance(value, str):
            block.set_text(label, [value])
        elif isinstance(value, int):
            block.set_integers(label, [value])
        else:
            block.set_floats(label, [value])
    return block
