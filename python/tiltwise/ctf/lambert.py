"""Contrast of a slab of ice against tilt (Eqs. 21, 22): scale = a0 kappa^(1 / |n . z|).

z is the viewing direction of a tilt and n the normal of the slab, perpendicular to the tilt axis, at an angle phi from
the mean viewing direction; kappa = exp(-thickness / mean free path).  The cost is the negative log-likelihood,
`sum 1/2 H scale^2 - G scale`; the printed Eq. 22 weights every tilt with H twice.

Slabs of several series may have one luminance for every unit of dose in common: a0 times the dose of a tilt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

F64 = NDArray[np.float64]
MOST_OBLIQUE = 0.05
"""Smallest |n . z| that is told apart: beyond 87 degrees a slab has no meaning."""
LIMIT = float(np.radians(80.0))
"""Largest angle of the normal from the mean view."""
STARTS_DEG = (-20.0, 0.0, 20.0)


@dataclass(frozen=True, slots=True)
class Slab:
    """A fitted slab."""

    luminance: float
    """a0, of every e/Å^2 of a tilt's dose where it is common to several series"""
    thickness: float
    """-log kappa, in mean free paths, at least 0"""
    normal: F64
    """(3,) unit vector in the tomogram"""
    scale: F64
    """(F,) of the model"""
    sigma: F64
    """(3,) standard deviations of log a0, thickness, and the angle of the normal in degrees"""
    excess: float
    """twice the log-likelihood by which free scales are better: chi-squared with F - 3 degrees of freedom"""


def tilt_frame(projection: F64) -> tuple[F64, F64, F64]:
    """Viewing directions (F, 3) of projections (F, 4, 4), and the two axes of the plane normals lie in.

    The tilt axis is the direction the views differ least along; the first axis of the plane is the mean view.
    """
    views = projection[:, 2, :3] / np.linalg.norm(projection[:, 2, :3], axis=1)[:, None]
    axis = np.linalg.eigh(views.T @ views)[1][:, 0]
    first = views.sum(axis=0)
    first -= axis * (axis @ first)
    first /= np.linalg.norm(first)
    return views, first, np.cross(axis, first)


def scales(parameters: F64, views: F64, first: F64, second: F64) -> tuple[F64, F64]:
    """Scales (F,) at (log a0, thickness, phi in radians), and their derivatives (F, 3)."""
    log_a, thickness, phi = parameters
    normal, turned = np.cos(phi) * first + np.sin(phi) * second, np.cos(phi) * second - np.sin(phi) * first
    cosine, slope = views @ normal, views @ turned
    flat = np.abs(cosine) < MOST_OBLIQUE
    slope = np.where(flat, 0.0, slope * np.sign(cosine))
    cosine = np.maximum(np.abs(cosine), MOST_OBLIQUE)
    value = np.exp(log_a - thickness / cosine)
    return value, value[:, None] * np.stack([np.ones_like(value), -1.0 / cosine, thickness * slope / cosine**2], axis=1)


def cost(parameters: F64, g: F64, h: F64, views: F64, first: F64, second: F64) -> tuple[float, F64]:
    """Negative log-likelihood and gradient; G and H are (F,) sums over the full plane over sigma^2."""
    value, derivatives = scales(parameters, views, first, second)
    return float((0.5 * h * value**2 - g * value).sum()), np.asarray((h * value - g) @ derivatives)


def fit_slab(g: F64, h: F64, projection: F64) -> Slab | None:
    """Slab that explains scales G/H best; None for fewer than four tilts with evidence."""
    seen = (h > 0) & np.isfinite(g)
    if seen.sum() < 4:
        return None
    all_views, first, second = tilt_frame(projection)
    views, g, h = all_views[seen], g[seen], h[seen]
    unit = float(max((g**2 / h).sum(), 1e-30))
    typical = float(np.log(max(g.sum() / h.sum(), 1e-6)))
    best = min(
        (
            minimize(
                lambda x: tuple(part / unit for part in cost(x, g, h, views, first, second)),
                [typical + 0.3, 0.3, np.radians(start)],
                jac=True,
                method="L-BFGS-B",
                bounds=[(typical - 10, typical + 10), (0.0, 10.0), (-LIMIT, LIMIT)],
                options={"ftol": 1e-15, "gtol": 1e-12, "maxiter": 500},
            )
            for start in STARTS_DEG
        ),
        key=lambda found: float(found.fun),
    )
    value, derivatives = scales(best.x, views, first, second)
    information = derivatives.T @ (h[:, None] * derivatives)
    sigma = np.sqrt(np.maximum(np.diag(np.linalg.pinv(information)), 0.0))
    sigma[2] = np.degrees(sigma[2])
    normal = np.cos(best.x[2]) * first + np.sin(best.x[2]) * second
    model = scales(best.x, all_views, first, second)[0]
    excess = float((h * (value - g / h) ** 2).sum())
    return Slab(float(np.exp(best.x[0])), float(best.x[1]), normal, model, sigma, excess)


@dataclass(frozen=True, slots=True)
class SlabEvidence:
    """What one series says about its slab."""

    g: F64
    h: F64
    """(F,) sums over the full plane over sigma^2; h is 0 in tilts without evidence"""
    projection: F64
    """(F, 4, 4)"""
    dose: float
    """of a tilt, e/Å^2"""


def fit_common(parts: Sequence[SlabEvidence]) -> list[Slab | None]:
    """Slabs with one luminance in common; None for series with fewer than four tilts with evidence.

    Thickness and normal belong to each series, as in `fit_slab`, from whose slabs the fit begins.
    """
    alone = [fit_slab(part.g, part.h, part.projection) for part in parts]
    chosen = [(part, slab) for part, slab in zip(parts, alone, strict=True) if slab is not None]
    if not chosen:
        return alone
    seen = [(part.h > 0) & np.isfinite(part.g) for part, _ in chosen]
    frames = [tilt_frame(part.projection) for part, _ in chosen]
    doses = np.log([part.dose for part, _ in chosen])
    unit = max(sum(float((part.g[s] ** 2 / part.h[s]).sum()) for (part, _), s in zip(chosen, seen, strict=True)), 1e-30)
    own = np.array(
        [
            [np.log(slab.luminance), slab.thickness, np.arctan2(slab.normal @ second, slab.normal @ first)]
            for (_, slab), (_, first, second) in zip(chosen, frames, strict=True)
        ]
    )

    def parameters(x: F64, number: int) -> F64:
        return np.array([x[0] + doses[number], *x[1 + 2 * number : 3 + 2 * number]])

    def total(x: F64) -> tuple[float, F64]:
        value, gradient = 0.0, np.zeros_like(x)
        for number, ((part, _), s, (views, first, second)) in enumerate(zip(chosen, seen, frames, strict=True)):
            one, slope = cost(parameters(x, number), part.g[s], part.h[s], views[s], first, second)
            value += one / unit
            gradient[0] += slope[0] / unit
            gradient[1 + 2 * number : 3 + 2 * number] = slope[1:] / unit
        return value, gradient

    start = np.concatenate([[np.median(own[:, 0] - doses)], own[:, 1:].ravel()])
    bounds = [(start[0] - 10, start[0] + 10)] + [(0.0, 10.0), (-LIMIT, LIMIT)] * len(chosen)
    found = minimize(
        total,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"ftol": 1e-16, "gtol": 1e-13, "maxiter": 5000},
    )
    return _with_luminance(alone, found.x, [parameters(found.x, n) for n in range(len(chosen))], seen, frames, parts)


def _with_luminance(
    alone: list[Slab | None],
    x: F64,
    parameters: list[F64],
    seen: list[NDArray[np.bool_]],
    frames: list[tuple[F64, F64, F64]],
    parts: Sequence[SlabEvidence],
) -> list[Slab | None]:
    """The slabs at a joint solution; errors of thickness and normal include that of the luminance."""
    chosen = [number for number, slab in enumerate(alone) if slab is not None]
    values, blocks = [], []
    for one, s, (views, first, second), number in zip(parameters, seen, frames, chosen, strict=True):
        value, derivatives = scales(one, views, first, second)
        values.append(value)
        blocks.append(derivatives[s].T @ (parts[number].h[s][:, None] * derivatives[s]))
    inverse = [np.linalg.pinv(block[1:, 1:]) for block in blocks]
    free = sum(block[0, 0] - block[0, 1:] @ inv @ block[1:, 0] for block, inv in zip(blocks, inverse, strict=True))
    variance = 1.0 / free if free > 0 else np.inf
    result: list[Slab | None] = [None] * len(alone)
    for i, number in enumerate(chosen):
        follow = inverse[i] @ blocks[i][1:, 0]
        errors = np.sqrt(np.maximum(np.diag(inverse[i]) + variance * follow**2, 0.0))
        (_, thickness, phi), (_, first, second), part, s = parameters[i], frames[i], parts[number], seen[i]
        result[number] = Slab(
            luminance=float(np.exp(x[0])),
            thickness=float(thickness),
            normal=np.cos(phi) * first + np.sin(phi) * second,
            scale=values[i],
            sigma=np.array([np.sqrt(variance), errors[0], np.degrees(errors[1])]),
            excess=float((part.h[s] * (values[i][s] - part.g[s] / part.h[s]) ** 2).sum()),
        )
    return result
