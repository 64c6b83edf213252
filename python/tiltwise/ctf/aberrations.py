"""Even and odd aberrations of optics groups, from all tilts of all their series (Eqs. 14, 15, 23-28).

They are fitted as powers of the frequency, k^n cos m phi and k^n sin m phi, in radians at the highest frequency, and
added to the stored Zernike coefficients.  Zernike polynomials of unnormalised frequencies are nearly the same function
for all n of one m; powers are not, and either basis spans the same phases.

Even terms begin with n = 2, which makes room for what defoci have taken of the higher ones; a constant is the phase
shift.  k^4 is the spherical aberration: where that is asked for, it goes to Cs and no Zernike coefficient, and k^2 to
the defoci.  Odd terms begin with n = 3: those of n = 1 are shifts of the images, which belong to the geometry.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import factorial

import numpy as np
from numpy.typing import NDArray

from tiltwise.ctf.evidence import FOR_ODD
from tiltwise.ctf.fit import Objective, Prior, WeightedEvidence, maximise
from tiltwise.ctf.series import SeriesFit, SeriesModel
from tiltwise.ctf.verdict import Verdict, judge
from tiltwise.kernels.api import Backend
from tiltwise.maps.cross_fit import HALVES
from tiltwise.optics.zernike import even_order, odd_order

F64 = NDArray[np.float64]
PRIOR_SIGMA = 10.0
"""Width of the prior on every coefficient in radians at the highest frequency: keeps what has no evidence at zero."""


def powers(order: int, *, even: bool) -> list[tuple[int, int]]:
    """(m, n) of the terms up to an order, m < 0 for sines."""
    lowest = 2 if even else 3
    return [(m, n) for n in range(lowest, order + 1, 2) for m in range(-n, n + 1, 2)]


def basis_of(terms: list[tuple[int, int]], kx: F64, ky: F64, highest: float) -> F64:
    """(P, K) terms at frequencies in 1/Å, 1 at the frequency `highest`."""
    rho, phi = np.hypot(kx, ky) / highest, np.arctan2(ky, kx)
    terms_at = [rho**n * (np.cos(m * phi) if m >= 0 else np.sin(-m * phi)) for m, n in terms]
    return np.asarray(np.stack(terms_at))


def zernike_coefficients(terms: list[tuple[int, int]], values: F64, highest: float, *, even: bool) -> F64:
    """Coefficients in the order of rlnEvenZernike or rlnOddZernike of the phase `values @ basis_of(terms)`."""
    top = max((n for _, n in terms), default=0)
    index = {}
    for i in range((top + 2) ** 2):
        m, n = even_order(i) if even else odd_order(i)
        if n <= top:
            index[m, n] = i
    result = np.zeros(len(index))
    for (m, n), value in zip(terms, values, strict=True):
        for degree, share in power_in_zernikes(abs(m), n).items():
            result[index[m, degree]] += value / highest**n * share
    return result


def power_in_zernikes(m: int, n: int) -> dict[int, float]:
    """Shares of the polynomials Z_d^m, d = m .. n, in rho^n."""
    degrees = list(range(m, n + 1, 2))
    matrix = np.zeros((len(degrees), len(degrees)))
    for column, d in enumerate(degrees):
        for s in range((d - m) // 2 + 1):
            denominator = factorial(s) * factorial((d + m) // 2 - s) * factorial((d - m) // 2 - s)
            matrix[degrees.index(d - 2 * s), column] = (-1) ** s * factorial(d - s) / denominator
    target = np.zeros(len(degrees))
    target[-1] = 1.0
    return dict(zip(degrees, np.linalg.solve(matrix, target).tolist(), strict=True))


def added(before: F64, more: F64) -> F64:
    """Sum of two lists of coefficients; the longer one decides, nothing that was stored is lost."""
    result = np.zeros(max(len(before), len(more)))
    result[: len(before)] += before
    result[: len(more)] += more
    return result


@dataclass(slots=True)
class GroupEvidence:
    """What all images of one optics group say about its aberrations, per block of particles."""

    kx: F64
    ky: F64
    """(K,) 1/Å"""
    squares: NDArray[np.int64]
    blocks: dict[tuple[int, int], F64] = field(default_factory=dict)
    """(6, K) by half set and fold: R_00, R_01, R_11, b_0, b_1, and the imaginary part of the odd evidence"""

    def total(self, half: int | None = None) -> F64:
        """(6, K) sums of one half set or both."""
        return np.asarray(np.sum([sums for (own, _), sums in self.blocks.items() if half in (None, own)], axis=0))


def add_series(groups: dict[int, GroupEvidence], model: SeriesModel, fit: SeriesFit, *, moved: bool) -> None:
    """Adds a series whose CTFs are those of `fit` (`moved`), or the present ones, in place."""
    evidence = model.evidence
    kx, ky = (evidence.disc.frequencies * evidence.step).T
    product = fit.calibration.product if moved else model.scale(model.total, None).product
    root = np.sqrt(2.0 / model.noise)
    factor = evidence.amplitude * ((product * root)[:, evidence.disc.shells]) * model.for_phases
    plain = root[:, evidence.disc.shells]
    zero = np.zeros_like(factor)
    c, s = model.wave(fit.tilts.change) if moved else (zero + 1.0, zero)
    for block, sums in zip(evidence.blocks, evidence.sums, strict=True):
        r00, r01, r11, b0, b1, i0, i1 = np.moveaxis(sums[:, :FOR_ODD], 1, 0)
        square, straight = factor**2, factor * plain
        rows = [
            (square * (c * c * r00 + 2 * c * s * r01 + s * s * r11)).sum(axis=0),
            (square * (c * s * (r11 - r00) + (c * c - s * s) * r01)).sum(axis=0),
            (square * (s * s * r00 - 2 * c * s * r01 + c * c * r11)).sum(axis=0),
            (straight * (c * b0 + s * b1)).sum(axis=0),
            (straight * (c * b1 - s * b0)).sum(axis=0),
            (straight * (c * i0 + s * i1)).sum(axis=0),
        ]
        group = groups.setdefault(block.optics, GroupEvidence(kx, ky, model.squares))
        key = block.half, block.fold
        group.blocks[key] = group.blocks.get(key, 0.0) + np.array(rows)


DEFOCUS, SPHERICAL = (0, 2), (0, 4)
"""Terms k^2 and k^4"""


@dataclass(frozen=True, slots=True)
class SphericalChange:
    """Change of Cs, and of the defocus of all tilts that goes with it."""

    millimetres: float
    sigma_millimetres: float
    defocus_angstrom: float


@dataclass(frozen=True, slots=True)
class Aberration:
    """Fitted phase of one parity."""

    even: bool
    terms: list[tuple[int, int]]
    values: F64
    """(P,) radians at the highest frequency"""
    sigma: F64
    highest: float
    verdict: Verdict
    wavelength: float | None = None
    """Å; given where k^4 is a change of Cs"""

    @property
    def coefficients(self) -> F64:
        """Zernike coefficients to add."""
        taken = () if self.wavelength is None else (DEFOCUS, SPHERICAL)
        left = [i for i, term in enumerate(self.terms) if term not in taken]
        if not left:
            return np.zeros(0)
        return zernike_coefficients([self.terms[i] for i in left], self.values[left], self.highest, even=self.even)

    @property
    def spherical(self) -> SphericalChange | None:
        """Change of Cs, if it was fitted."""
        if self.wavelength is None:
            return None
        per_mm = np.pi / 2 * 1e7 * self.wavelength**3 * self.highest**4
        fourth, second = self.terms.index(SPHERICAL), self.terms.index(DEFOCUS)
        defocus = -self.values[second] / (np.pi * self.wavelength * self.highest**2)
        return SphericalChange(float(self.values[fourth] / per_mm), float(self.sigma[fourth] / per_mm), float(defocus))

    def phase(self, kx: F64, ky: F64) -> F64:
        """Radians at frequencies in 1/Å."""
        return np.asarray(self.values @ basis_of(self.terms, kx, ky, self.highest))


def weighted(sums: F64, squares: NDArray[np.int64], *, even: bool) -> WeightedEvidence:
    """Evidence (6, K) in the form of fits of phases; the quadratic term of odd phases is constant and left out."""
    if even:
        return WeightedEvidence(sums[None, :3].copy(), sums[None, 3:5].copy(), squares)
    return WeightedEvidence(np.zeros((1, 3, sums.shape[1])), sums[None, [3, 5]].copy(), squares)


def fit_aberration(
    group: GroupEvidence,
    order: int,
    *,
    even: bool,
    families: int,
    backend: Backend,
    threads: int,
    wavelength: float | None = None,
) -> Aberration:
    """Aberration of an optics group by Newton steps from zero, judged by the halves.

    With a `wavelength` in Å the term k^4 is a change of Cs; it is the only one beside the defocus if `order` is 0.
    """
    terms = powers(order, even=even) or [DEFOCUS, SPHERICAL]
    highest = float(np.hypot(group.kx, group.ky).max())
    basis = basis_of(terms, group.kx, group.ky, highest)
    rows, start = np.zeros(1, np.int32), np.zeros((1, len(terms)))

    def objective(sums: F64) -> Objective:
        flat = np.zeros(len(terms))
        prior = Prior(start, flat + 1.0 / PRIOR_SIGMA**2, flat, start)
        return Objective(
            weighted(sums, group.squares, even=even), basis, prior, backend, threads, fit_scale=even, unit=flat + 1.0
        )

    gains, information = [], 0.0
    for half in HALVES:
        others = {key: sums for key, sums in group.blocks.items() if key[0] != half}
        if len(others) in (0, len(group.blocks)):
            continue
        values = maximise(objective(group.total(half)), rows, start)[0]
        for sums in others.values():
            there = objective(sums)
            gains.append(float(there(rows, values)[0][0] - there(rows, start)[0][0]))
            error = values[0] @ basis
            c, s = np.cos(error) - 1.0, np.sin(error)
            r00, r01, r11 = sums[:3]
            length = r00 * c * c + 2 * r01 * c * s + r11 * s * s if even else r00 * (c * c + s * s)
            information += float(length.sum())
    whole = objective(group.total())
    values, _, _, hessian = maximise(whole, rows, start)
    sigma = np.sqrt(np.maximum(np.diag(np.linalg.pinv(-hessian[0])), 0.0))
    verdict = judge(np.array(gains), information, families)
    return Aberration(even, terms, values[0], sigma, highest, verdict, wavelength)


def observed_phase(group: GroupEvidence, *, even: bool) -> F64:
    """(K,) phase that every pixel asks for by itself, radians; noisy, for pictures."""
    r00, r01, r11, b0, b1, imaginary = group.total()
    if not even:
        return np.asarray(np.arctan2(imaginary, b0))
    floor = 1e-3 * (r00 + r11)
    determinant = (r00 + floor) * (r11 + floor) - r01**2
    u0, u1 = (r11 + floor) * b0 - r01 * b1, (r00 + floor) * b1 - r01 * b0
    return np.where(determinant > 0, np.arctan2(u1, u0), 0.0)
