"""Moments of peaks that are not quite Gaussian, from their likelihood around the mode."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tiltwise.em.laplace import Climber, Modes, turned
from tiltwise.geometry.grids import translation_ball

SPACING = 1.2
"""Distance of points in standard deviations of the Gaussian."""
NARROWEST = 0.3
"""Width of a peak over that of its Gaussian below which the points tell nothing of it."""
POINTS = SPACING * translation_ball(2.5, 1.0)
"""(81, 3) within three standard deviations; rotations and shifts have these points each, 6,561 poses."""
_WEIGHTS = np.exp(-0.5 * (POINTS**2).sum(axis=1))
MASS_KEPT = float(SPACING**3 * _WEIGHTS.sum() / (2.0 * np.pi) ** 1.5)
VARIANCE_KEPT = float(_WEIGHTS @ POINTS[:, 0] ** 2 / _WEIGHTS.sum())
"""What these points leave of the integral and of each variance of a Gaussian: three sigma are not all of it."""
MOST_CORRELATED = 0.8
"""Correlation of rotations and shifts up to which a product of points follows the Gaussian: at 0.8 variances are
right to 7 %, at 0.9 no more."""


def match_moments(climber: Climber, modes: Modes, items: NDArray[np.intp], radius: float) -> Modes:
    """Gaussians with the integral, mean and covariance of the posterior around modes, instead of its curvature.

    `items` are the poses of the climber that have become the modes.  The covariance gives the axes and widths of the
    points; the likelihood at all pairs of rotations and shifts gives the rest.  A peak too narrow for its points, or
    whose rotations go with its shifts too closely, gets a log posterior of NaN.
    """
    result = Modes(*(part.copy() for part in (modes.rotation, modes.shift, modes.log_posterior, modes.covariance)))
    for number, item in enumerate(items):
        covariance = modes.covariance[number]
        turn_root, move_root = (np.linalg.inv(np.linalg.cholesky(covariance[s, s])) for s in (slice(3), slice(3, 6)))
        if not np.linalg.norm(turn_root @ covariance[:3, 3:] @ move_root.T, 2) <= MOST_CORRELATED:
            result.log_posterior[number] = np.nan
            continue
        (turn_width, turn_axes), (move_width, move_axes) = (
            np.linalg.eigh(part) for part in (covariance[:3, :3], covariance[3:, 3:])
        )
        turns = (POINTS * np.sqrt(turn_width)) @ turn_axes.T
        moves = (POINTS * np.sqrt(move_width)) @ move_axes.T
        rotations = turned(np.broadcast_to(modes.rotation[number], (len(turns), 3, 3)), turns)
        log = climber.log_posterior(int(item), rotations, modes.shift[number] + moves, radius)
        top = log.max()
        weight = np.exp(log - top)
        total = weight.sum()
        weight /= total
        volume = SPACING**6 * np.sqrt(turn_width.prod() * move_width.prod())
        by_turn, by_move = weight.sum(axis=1), weight.sum(axis=0)
        mean = np.concatenate([by_turn @ turns, by_move @ moves])
        second = np.empty((6, 6))
        second[:3, :3] = np.einsum("r,ra,rb->ab", by_turn, turns, turns)
        second[3:, 3:] = np.einsum("t,ta,tb->ab", by_move, moves, moves)
        second[:3, 3:] = turns.T @ weight @ moves
        second[3:, :3] = second[:3, 3:].T
        matched = (second - np.outer(mean, mean)) / VARIANCE_KEPT
        # widths of the peak in those of the Gaussian the points are spread with
        inverse_root = np.linalg.inv(np.linalg.cholesky(covariance))
        if not np.linalg.eigvalsh(inverse_root @ matched @ inverse_root.T)[0] >= NARROWEST**2:
            result.log_posterior[number] = np.nan
            continue
        log_determinant = np.linalg.slogdet(2.0 * np.pi * matched)[1]
        result.rotation[number] = turned(modes.rotation[number][None], mean[None, :3])[0]
        result.shift[number] += mean[3:]
        result.covariance[number] = matched
        # the height that gives this Gaussian the integral of the posterior
        result.log_posterior[number] = top + np.log(total * volume / MASS_KEPT**2) - 0.5 * log_determinant
    return result
