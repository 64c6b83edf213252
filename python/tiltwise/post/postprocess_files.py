"""`postprocess.star` with RELION's columns, and the FSC as the EMDB takes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from tiltwise.files import write_text
from tiltwise.io.paths import path_text
from tiltwise.io.star import StarBlock, StarDocument, write_star
from tiltwise.post.sharpening import Guinier
from tiltwise.spectral.randomised import MaskedFsc

F64 = NDArray[np.float64]

_NO_RESOLUTION = 999.0
"""RELION's resolution of shell 0, Å."""
_LOG_OF_NOTHING = -99.0
"""RELION's logarithm of amplitudes that are zero."""


@dataclass(frozen=True, slots=True)
class Postprocessed:
    """Contents of `postprocess.star`; curves are `(N // 2 + 1,)`."""

    half_maps: tuple[Path, Path]
    map: Path
    masked_map: Path
    mask: Path | None
    resolution_angstrom: float
    """of the last shell before the FSC falls below 0.143"""
    randomise_from_angstrom: float
    bfactor_angstrom2: float
    box_over_particle: float
    frequency: F64
    """1/Å"""
    corrected: F64
    particle: F64
    curves: MaskedFsc
    guinier: Guinier
    sharpened: F64
    """ln of the amplitudes after the B-factor"""


def write_postprocess_star(path: Path, content: Postprocessed) -> None:
    """Write data_general, data_fsc and data_guinier, as relion_postprocess does.

    Raises
    ------
    OutputError
        if the file cannot be written.
    """
    general = StarBlock("general", "list", {})
    general.set_floats("rlnFinalResolution", [content.resolution_angstrom])
    general.set_floats("rlnBfactorUsedForSharpening", [content.bfactor_angstrom2])
    general.set_text("rlnUnfilteredMapHalf1", [path_text(content.half_maps[0], path)])
    general.set_text("rlnUnfilteredMapHalf2", [path_text(content.half_maps[1], path)])
    general.set_text("rlnPostprocessedMap", [path_text(content.map, path)])
    general.set_floats("rlnParticleBoxFractionSolventMask", [content.box_over_particle])
    if content.mask is not None:
        general.set_text("rlnMaskName", [path_text(content.mask, path)])
    general.set_floats("rlnRandomiseFrom", [content.randomise_from_angstrom])
    general.set_text("rlnPostprocessedMapMasked", [path_text(content.masked_map, path)])
    if content.guinier.fitted.any():
        general.set_floats("rlnFittedSlopeGuinierPlot", [content.guinier.slope])
        general.set_floats("rlnFittedInterceptGuinierPlot", [content.guinier.intercept])
        general.set_floats("rlnCorrelationFitGuinierPlot", [content.guinier.correlation])
    write_star(path, StarDocument([general, _fsc_block(content), _guinier_block(content)]))


def _fsc_block(content: Postprocessed) -> StarBlock:
    frequency = content.frequency.copy()
    frequency[0] = 1.0 / _NO_RESOLUTION
    block = StarBlock("fsc", "loop", {})
    block.set_integers("rlnSpectralIndex", np.arange(len(frequency)))
    block.set_floats("rlnResolution", frequency)
    block.set_floats("rlnAngstromResolution", 1.0 / frequency)
    for label, curve in (
        ("rlnFourierShellCorrelationCorrected", content.corrected),
        ("rlnFourierShellCorrelationParticleMaskFraction", content.particle),
        ("rlnFourierShellCorrelationUnmaskedMaps", content.curves.unmasked),
        ("rlnFourierShellCorrelationMaskedMaps", content.curves.masked),
        ("rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps", content.curves.randomised),
    ):
        # Shell 0 is the mean density, which says nothing about detail.
        block.set_floats(label, np.concatenate([[1.0], curve[1:]]))
    return block


def _guinier_block(content: Postprocessed) -> StarBlock:
    guinier = content.guinier
    block = StarBlock("guinier", "loop", {})
    block.set_floats("rlnResolutionSquared", guinier.frequency_squared)
    for label, values in (
        ("rlnLogAmplitudesOriginal", guinier.original),
        ("rlnLogAmplitudesWeighted", guinier.weighted),
        ("rlnLogAmplitudesSharpened", content.sharpened),
    ):
        block.set_floats(label, np.where(np.isfinite(values), values, _LOG_OF_NOTHING))
    if guinier.fitted.any():
        block.set_floats("rlnLogAmplitudesIntercept", np.full(len(guinier.original), guinier.intercept))
    return block


def write_fsc_xml(path: Path, frequency: F64, curve: F64) -> None:
    """Write an FSC for deposition at the EMDB: frequency in 1/Å and correlation of every shell but 0.

    Raises
    ------
    OutputError
        if the file cannot be written.
    """
    title = quoteattr("tiltwise: FSC of half maps inside the mask, corrected by randomised phases")
    lines = [f'<fsc title={title} xaxis="Resolution (A-1)" yaxis="Correlation Coefficient">']
    for x, y in zip(frequency[1:], curve[1:], strict=True):
        lines += ["  <coordinate>", f"    <x>{x:.8g}</x>", f"    <y>{y:.6g}</y>", "  </coordinate>"]
    write_text(path, "\n".join([*lines, "</fsc>", ""]))
