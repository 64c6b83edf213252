"""Pixels of the tilt images: NaN, blank images, and noise far from that of the other tilts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tiltwise.check.findings import Findings, some
from tiltwise.errors import TiltwiseError
from tiltwise.io.tilt_images import TiltImages
from tiltwise.model import TiltSeries

F64 = NDArray[np.float64]

_FAR = 4.0
"""Factor of the noise's standard deviation between a tilt and the median of its series that is worth a word."""


def check_pixels(series: TiltSeries, findings: Findings) -> F64 | None:
    """Findings about the images of one series; their noise (F,), None without images.

    Noise is the standard deviation of differences of neighbouring pixels over sqrt 2: gradients and the specimen hardly
    enter.
    """
    if not series.image_files:
        return None
    images = TiltImages(series)
    noise = np.full(series.n_tilts, np.nan)
    bad, empty = [], []
    for tilt in range(series.n_tilts):
        try:
            image = images.image(tilt)
        except TiltwiseError as error:
            findings.add("TW-FILE-03", error.what, error.where or series.name, found=error.found or "")
            return None
        if not np.isfinite(image).all():
            bad.append(tilt)
        elif image.min() == image.max():
            empty.append(tilt)
        else:
            noise[tilt] = np.diff(image, axis=1).astype(np.float64).std() / np.sqrt(2)
    for code, what, tilts in (
        ("TW-IMAGE-03", "tilt images contain NaN or infinite pixels", bad),
        ("TW-IMAGE-04", "tilt images are empty: all pixels are equal", empty),
    ):
        if tilts:
            findings.add(code, f"{series.name}: {what}", some([_row(series, tilt) for tilt in tilts]))
    if np.isfinite(noise).sum() >= 3:
        ratio = noise / np.nanmedian(noise)
        far = np.flatnonzero((ratio < 1 / _FAR) | (ratio > _FAR))
        if len(far):
            findings.add(
                "TW-IMAGE-05",
                f"{series.name}: the noise of {len(far)} tilts is far from that of the others",
                some([_row(series, int(tilt)) for tilt in far]),
                expected=f"within a factor of {_FAR:g} of the median",
                found=f"{ratio[far[0]]:.3g} times the median",
            )
    return noise


def _row(series: TiltSeries, tilt: int) -> str:
    return f"row {tilt + 1} ({series.nominal_tilt_deg[tilt]:.0f}°)"
