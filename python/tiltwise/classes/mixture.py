"""Posteriors of classes from their log likelihoods; a first guess from scores along a few directions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

TRIALS, STEPS = 20, 60


def posterior(log_likelihood: F64, share: F64) -> tuple[F64, F64]:
    """(P, K) probability of every class and (P,) log evidence; `share` (K,) are the mixing proportions."""
    with np.errstate(divide="ignore"):
        joint = log_likelihood + np.log(share)
    top = joint.max(axis=1, keepdims=True)
    weight = np.exp(joint - top)
    total = weight.sum(axis=1, keepdims=True)
    return weight / total, (top + np.log(total))[:, 0]


def proportions(log_likelihood: F64, share: F64, steps: int = 50) -> F64:
    """Mixing proportions (K,) that make the log likelihoods most likely, from `share` on; one particle is added to
    all classes together, so that no class is given up for good by rounding.
    """
    alive = share > 0
    for _ in range(steps):
        weight, _ = posterior(log_likelihood, share)
        new = weight.sum(axis=0) + alive / alive.sum()
        new = np.where(alive, new / new.sum(), 0.0)
        if np.abs(new - share).max() < 1e-6:
            return new
        share = new
    return share


def cluster(scores: F64, count: int, rng: np.random.Generator) -> F64:
    """(P, K) probabilities of `count` Gaussians of unit width and free shares in the space of `scores` (P, J).

    Of several random starts (k-means++) the most likely is taken.
    """
    best, result = -np.inf, np.ones((len(scores), count)) / count
    for _ in range(TRIALS):
        centre = scores[rng.integers(len(scores))][None]
        while len(centre) < count:
            near = ((scores[:, None] - centre) ** 2).sum(axis=2).min(axis=1)
            total = near.sum()
            chance = near / total if total > 0 else np.full(len(scores), 1.0 / len(scores))
            centre = np.concatenate([centre, scores[rng.choice(len(scores), p=chance)][None]])
        share = np.full(count, 1.0 / count)
        for _ in range(STEPS):
            log = -0.5 * ((scores[:, None] - centre) ** 2).sum(axis=2)
            weight, evidence = posterior(log, share)
            total = weight.sum(axis=0) + 1e-9
            share, centre = total / total.sum(), weight.T @ scores / total[:, None]
        if evidence.sum() > best + 1e-9:
            best, result = float(evidence.sum()), weight
    return result
