"""Contrast of every tilt series relative to the others: factors s on the CTF, `X = s C V + noise`.

Images with more contrast than the map predicts are scored as if the map were weak, and images with less pull the
reconstruction down.  The least-squares estimate at the poses of the E-step is `s = sum <C V, X> / sum |C V|^2`, both
over the noise power; what the prior takes from V is common to all series and cancels when factors are divided by
their mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tiltwise.em.maximisation import NoiseSums
from tiltwise.maps.spectra import MIN_PRIOR_SHELL

WELL_KNOWN = 0.75
"""FSC of the half maps down to which shells count: there is three times more signal than noise in the map."""
WIDEST = 5.0
"""Factors further from the median than this are taken for errors."""


def series_scales(
    sums: Sequence[NoiseSums],
    noise: Sequence[NDArray[np.float64]],
    old: NDArray[np.float64],
    curve: NDArray[np.float64],
    counts: NDArray[np.float64],
) -> NDArray[np.float64]:
    """New factors (n,) of n tilt series, their mean over all particles 1.

    Parameters
    ----------
    sums
        of an E-step whose images were multiplied by `old`.
    noise
        sigma^2 (F, S) of every series in that E-step.
    old
        (n,) factors it used.
    curve
        FSC (S,) of the half maps it was compared with; zeros if there were none.
    counts
        (n,) particles of every series.  A series without particles, or whose images do not correlate with the map,
        keeps its factor.
    """
    below = np.flatnonzero(~(curve[1:] >= WELL_KNOWN))
    last = max(int(below[0]) if len(below) else len(curve) - 1, MIN_PRIOR_SHELL)
    shells = slice(1, last + 1)
    found = old.astype(np.float64).copy()
    for i, (part, power) in enumerate(zip(sums, noise, strict=True)):
        quadratic = float((part.quadratic[:, shells] / power[:, shells]).sum())
        cross = 0.5 * (float((part.explained[:, shells] / power[:, shells]).sum()) + quadratic)
        if cross > 0 and quadratic > 0:
            found[i] = old[i] * cross / quadratic
    used = counts > 0
    if not used.any():
        return found
    median = float(np.median(found[used]))
    found = np.clip(found, median / WIDEST, median * WIDEST)
    return np.asarray(found / np.average(found, weights=np.where(used, counts, 0)))
