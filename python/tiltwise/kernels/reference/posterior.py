"""Normalised posterior of one particle over rotations and shifts (Eq. 1), in float64."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tiltwise.kernels.api import PosteriorSummary


def posterior(
    log_likelihood: NDArray[np.floating],
    log_prior_rotation: NDArray[np.floating],
    log_prior_shift: NDArray[np.floating],
    fraction: float,
    *,
    threads: int = 0,
) -> tuple[NDArray[np.float64], PosteriorSummary]:
    """See `tiltwise.kernels.api.Backend.posterior`."""
    joint = (
        log_likelihood.astype(np.float64)
        + log_prior_rotation.astype(np.float64)[:, None]
        + log_prior_shift.astype(np.float64)[None, :]
    ).ravel()
    empty = np.zeros(log_likelihood.shape)
    if joint.size == 0 or np.isnan(joint).any() or joint.max() == np.inf:
        return empty, PosteriorSummary(np.nan if joint.size else -np.inf, 0, 0.0, 0, 0.0)
    top = joint.max()
    if top == -np.inf:
        return empty, PosteriorSummary(-np.inf, 0, 0.0, 0, 0.0)
    weight = np.exp(joint - top)
    total = weight.sum()
    probability = weight / total
    entropy = float(-np.sum(probability[probability > 0] * np.log(probability[probability > 0])))
    # The smallest set of largest weights that holds `fraction` of the mass; ties keep their order.
    order = np.argsort(-probability, kind="stable")
    mass = np.cumsum(probability[order])
    n_significant = min(int(np.searchsorted(mass, fraction * mass[-1])) + 1, int(np.count_nonzero(probability)))
    kept = np.zeros(joint.size)
    kept[order[:n_significant]] = probability[order[:n_significant]]
    summary = PosteriorSummary(
        log_evidence=float(top + np.log(total)),
        best=int(np.argmax(joint)),
        max_probability=float(probability.max()),
        n_significant=n_significant,
        entropy=entropy,
    )
    return kept.reshape(log_likelihood.shape), summary
