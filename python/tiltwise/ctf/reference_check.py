"""Whether references can be those of the images: contrast and hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from tiltwise.ctf.references import References
from tiltwise.ctf.series import SeriesModel
from tiltwise.errors import DataError
from tiltwise.kernels.api import C64

INVERTED = -8.0
"""Correlation of images and predictions, in standard deviations, below which the contrast must be wrong."""
MIRRORED = 8.0
"""Standard deviations by which the correlation of a mirror image must exceed that of the map."""
SAMPLE = 30
"""Particles whose images tell the hand."""


def correlation(model: SeriesModel) -> float:
    """Of images and predictions at the present CTFs, in standard deviations of noise."""
    linear, quadratic = model.shell_parts(model.total, None)
    return float(linear.sum()) / max(float(np.sqrt(quadratic.sum())), 1e-30)


def refuse_inverted(model: SeriesModel) -> None:
    """Raises DataError where images look like the negative of their predictions."""
    score = correlation(model)
    if score < INVERTED:
        raise DataError(
            "reference and images have opposite contrast",
            where=model.series.name,
            expected="a correlation of images and predictions that is positive, or noise",
            found=f"{score:.1f} standard deviations",
            fix="particles are white in maps and dark in tilt images: invert the half maps, or the tilt images",
        )


def mirrored(volume: C64, axis: str) -> C64:
    """Padded Fourier volume (M, M, M // 2 + 1) of the mirror image of a map along x, y or z."""
    axes = {"z": (0,), "y": (1,), "x": (0, 1)}[axis]
    flipped = np.roll(np.flip(volume, axes), (1,) * len(axes), axes)
    # the half x < 0 is not stored: mirrored along x is inverted, and mirrored along y and z
    return np.ascontiguousarray(flipped.conj() if axis == "x" else flipped)


def refuse_wrong_hand(references: References, evidence: Callable[[References], SeriesModel]) -> None:
    """Raises DataError where a mirror image predicts images far better; `evidence` is that of a sample of particles."""
    own = correlation(evidence(references))
    scores = {}
    for axis in "xyz":
        volumes = {key: mirrored(volume, axis) for key, volume in references.volumes.items()}
        scores[axis] = correlation(evidence(replace(references, volumes=volumes)))
    axis = max(scores, key=lambda one: scores[one])
    if scores[axis] > max(own, 0.0) + MIRRORED:
        raise DataError(
            "the reference has the wrong hand",
            where="--ref1, --ref2",
            expected="half maps that correlate with the images better than their mirror images do",
            found=f"{own:.1f} standard deviations, and {scores[axis]:.1f} for maps mirrored along {axis}",
            fix=f"mirror both half maps along {axis}, or use the half maps of the job that found these poses",
        )
