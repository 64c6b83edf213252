"""Contracts of the compute kernels: the one place that states shapes, dtypes, units and equations.

Conventions shared by all kernels
---------------------------------
* **Reference volumes** are the Fourier transforms of centred, zero-padded maps in half-complex layout:
  shape `(M, M, M // 2 + 1)`, axes `(z, y, x)`, frequency zero at index 0, `y` and `z` in FFT order.
  `M` may be odd or even.
* **Frequencies** `(K, 3)` float32, columns `(kx, ky, kz)`: one entry per independent Fourier component
  of an image (`kz = 0`) or of a box, in cycles per box.  `matrices` `(n, 3, 3)` float32 map them to
  coordinates in the volume, padding included: `p = matrices[i] @ frequencies[j]` (Eq. 3, 6:
  `matrices[i] = (M / N) * A_f^T`, where A_f rotates the reference into the frame of image f).
* `p` with `p_x < 0` is folded: `V(-p) = conj V(p)`.  Samples with `|p| >= radius` are zero and are not
  inserted.  `radius <= M // 2`.
* Interpolation is trilinear.  `insert` is the exact transpose of `project` with respect to the real
  inner product `Re sum conj(a) b` over stored entries; the redundant plane `x = 0` of the accumulators
  is completed afterwards, once, by `tiltwise.maps.volumes.Accumulator.complete`.
* **Sums over a half plane.**  Likelihoods are sums over the full plane; kernels see each independent
  component once.  `score` therefore returns the bare sums and its caller forms
  `log L = 2 * cross - quadratic`; the self-conjugate component (DC) is given weight zero by the caller.

All array arguments must be C-contiguous and of the stated dtype; compiled backends raise `ShapeError`
or `TypeError` otherwise and never copy silently.  The `reference` backend computes in float64 and
returns the same dtypes as stated, except that it never rounds its results to float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

C64 = NDArray[np.complex64]
C128 = NDArray[np.complex128]
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class PosteriorSummary:
    """What `posterior` reports of one particle besides the weights.

    log_evidence
        log of the sum over all poses of exp(log-likelihood) x prior.
    best
        flat index `rotation * n_shifts + shift` of the largest weight (the first one on ties).
    max_probability
        the largest normalised weight.
    n_significant
        number of poses kept, the smallest set of largest weights that holds `fraction` of the mass.
    entropy
        -sum p log p over all poses, in nats; `exp(entropy)` is the effective number of poses.
    """

    log_evidence: float
    best: int
    max_probability: float
    n_significant: int
    entropy: float


class Backend(Protocol):
    """A complete set of kernels.  `threads = 0` means the default of `tiltwise.kernels.select`."""

    name: str
    rough_score: bool
    """whether `score` is faster where it may be rough"""

    def project(
        self,
        volume: C64,
        matrices: F32,
        frequencies: F32,
        radius: float,
        *,
        out: C64 | None = None,
        threads: int = 0,
    ) -> C64:
        """Slices of a volume (Eqs. 3, 6): `(n, K)`, `out[i, j] = V(matrices[i] @ frequencies[j])`."""
        ...

    def insert(
        self,
        slices: C64,
        weights: F32,
        matrices: F32,
        frequencies: F32,
        radius: float,
        data: C128,
        weight: F64,
        *,
        threads: int = 0,
    ) -> None:
        """Transpose of `project` (Eqs. 8-10, 11): adds `slices` `(n, K)` to `data` and `weights`
        `(n, K)` to `weight`, both of shape `(M, M, M // 2 + 1)`, in place.

        The samples of a voxel are summed in an order that the arguments alone decide, whatever the number
        of threads, so the bytes of the result do not depend on it.
        """
        ...

    def score(
        self,
        slices: C64,
        image: C64,
        power: F32,
        phases: C64,
        rows: I32 | None = None,
        columns: I32 | None = None,
        *,
        wanted: Bools | None = None,
        rough: bool = False,
        threads: int = 0,
    ) -> tuple[F32, F32]:
        """Cross and quadratic terms of the expanded likelihood (Eq. 4) of one particle.

        Parameters
        ----------
        slices : (R, K)
            reference slices of every rotation; the tilts of a particle are concatenated along K.
        image : (K,)
            Y = C X / sigma^2.
        power : (K,)
            B = C^2 / sigma^2.
        phases : (T, K)
            exp(+2 pi i k.d_t / N) that moves the image of a particle displaced by d_t back to the centre.
        rows, columns : (r,), (t,)
            which slices and which phases are scored, in this order; all of them without a list.
        wanted : (r, t)
            where cross terms are wanted: they are -inf elsewhere; everywhere without it.  Time is saved where rows
            that follow each other want the same columns.
        rough
            the factors of the cross terms, slices and shifted images, may be rounded to 8 significant bits (bfloat16);
            sums are those of float32.  For searches that score again what they keep.  Backends without faster
            products of such numbers ignore it.

        Returns
        -------
        cross : (R, T), or (r, t) of those listed
            `sum_k Re( conj(slices[r, k]) * image[k] * phases[t, k] )`
        quadratic : (R,), or (r,)
            `sum_k power[k] * |slices[r, k]|^2`
        """
        ...

    def posterior(
        self,
        log_likelihood: F32,
        log_prior_rotation: F32,
        log_prior_shift: F32,
        fraction: float,
        *,
        threads: int = 0,
    ) -> tuple[F32, PosteriorSummary]:
        """Normalised posterior over rotations x shifts (Eq. 1), by log-sum-exp.

        `log_likelihood` is `(R, T)`, the priors `(R,)` and `(T,)`; `-inf` excludes a pose.  Weights
        outside the significant set are returned as zero; the others are normalised by the full sum.
        A particle with no finite entry, or with NaN, gets all-zero weights, `log_evidence = -inf`
        (or NaN), `best = 0`, `max_probability = 0`, `n_significant = 0`, `entropy = 0`.
        """
        ...

    def backproject(
        self,
        weights: F32,
        image: C64,
        power: F32,
        phases: C64,
        *,
        threads: int = 0,
    ) -> tuple[C64, F32]:
        """Posterior-weighted sums of one particle, per rotation (numerator and denominator of Eq. 11).

        Returns `sums` `(R, K)`, `sum_t weights[r, t] * image[k] * phases[t, k]`, and `totals` `(R, K)`,
        `power[k] * sum_t weights[r, t]`, ready for one `insert` per rotation.
        """
        ...

    def shell_sums(
        self,
        a: C64,
        b: C64,
        weights: F32 | None,
        shells: I32,
        n_shells: int,
        *,
        threads: int = 0,
    ) -> F64:
        """Sums over shells (Eqs. 12, 13 and the FSC): `(n, n_shells)`,
        `out[i, s] = sum_{k in s} weights[k] * Re( conj(a[i, k]) * b[i, k] )`.

        `a` and `b` are `(n, K)`, `shells` `(K,)`; `weights` `(K,)` or None for ones.  Entries with a
        shell outside `[0, n_shells)` are left out.
        """
        ...

    def curvature(
        self,
        volume: C64,
        matrices: F32,
        frequencies: F32,
        radius: float,
        images: C64,
        powers: F32,
        rows: I32,
        slopes: F32,
        *,
        threads: int = 0,
    ) -> F64:
        """Likelihood of single images (Eq. 4) with its derivatives in rotation and shift, `(n, 22)`;
        of single 3D arrays (Eq. 7') `(n, 29)`.

        Item `i` has its own slice, `V_i[k] = V(matrices[i] @ frequencies[k])`, and of the arrays `images`
        and `powers` `(m, S)`, S >= K, the first K components of row `rows[i]`: powers are B, and images
        times `exp(+i k.t)` with `t = slopes[i]` are Y, moved back to the centre: a particle displaced by d
        pixels in an image of N pixels has `t = 2 pi d / N`.  Slopes are `(2,)`, along the first two axes of
        k, for images, whose `kz` is 0, and `(3,)` for 3D arrays.  Parameters are small rotations w about the
        axes of the image, which take matrices to `matrices[i] @ exp(-[w]x)`, and changes of t, which take
        slices to `V_i exp(-i k.t)`.  With J the derivatives of the slice, `dV/dw = (matrices[i]^T grad V) x k`
        and `dV/dt = -i k V`, columns are

        0       cross, `sum Re conj(V) Y`
        1       quadratic, `sum B |V|^2`
        2-6     gradient in (wx, wy, wz, tx, ty), `sum Re conj(J) (Y - B V)`
        7-21    upper triangle of the Fisher information, `sum B Re conj(J_a) J_b`, row by row

        or, with tz as the sixth parameter, 2-7 and 8-28.

        As in `score` these are bare sums: `log L = 2 cross - quadratic` has twice this gradient, and twice
        the information as minus its expected second derivative.  Gradients are those of the trilinear
        function, exact between grid planes.  Samples that are not inside do not contribute.
        """
        ...

    def condense(
        self,
        volume: C64,
        matrices: F32,
        frequencies: F32,
        radius: float,
        images: C64,
        depths: F32,
        starts: I32,
        turns: F32,
        slopes: F32,
        out: F64,
        *,
        threads: int = 0,
    ) -> None:
        """Condensed evidence about the CTF phase of every pixel (Eqs. 23-26): adds to `out` `(G, 8, K)`, in place.

        Image `i` has the slice `V_i[k] = V(matrices[i] @ frequencies[k])`, the row `images[i]` `(K,)`, and a
        depth; the images of group g are `starts[g] : starts[g + 1]`, `starts` `(G + 1,)`.  The CTF phase is
        `gamma = 2 pi (turns[g, k] + slopes[k] * depths[i])`: keep turns within half a turn, in single precision
        whole ones cost accuracy.  With the CTF -sin(gamma), and d = -(sin gamma, cos gamma), rows of `out` are sums
        over the images of a group of

        0-2     upper triangle of `|V|^2 d d^T`
        3, 4    `Re(X V*) d`
        5, 6    `Im(X V*) d`, for odd aberrations
        7       `|X|^2`

        The CTF of gamma + e is `u . d` with `u = (cos e, sin e)`, so that `sum |X - C V|^2` is
        `u.R.u - 2 b.u` plus row 7.  (The printed Eq. 25 has the components of d in the other order.)  Samples
        that are not inside have V = 0.  Images are added in their order, whatever the number of threads.
        """
        ...

    def phase_cost(
        self, matrices: F64, vectors: F64, basis: F64, parameters: F64, rows: I32, *, threads: int = 0
    ) -> F64:
        """Cost of phase errors with gradient and second derivatives (Eqs. 27, 28): `(n, 2, 1 + P + P (P + 1) / 2)`.

        Item `i` takes R from `matrices[rows[i]]` `(3, K)`, rows `R_00, R_01, R_11`, and b from
        `vectors[rows[i]]` `(2, K)`.  Its phase errors are `e = parameters[i] @ basis`, basis `(P, K)`, P <= 64,
        and `u = (cos e, sin e)`.  `out[i, 0]` belongs to the linear part `sum b.u`, `out[i, 1]` to the quadratic
        part `sum u.R.u`: value, gradient, upper triangle of the second derivatives, row by row.  With a scale a
        of the CTF, `log L = a * linear - a^2 / 2 * quadratic` up to a constant, for sums over the full plane.
        """
        ...

    def cc_table(
        self,
        slices: C64,
        images: C64,
        powers: F32,
        weights: F32,
        rows: I32,
        frequencies: I32,
        cosines: F32,
        sines: F32,
        *,
        out: F32 | None = None,
        threads: int = 0,
    ) -> tuple[F32, F64]:
        """Correlations of images with their predictions on a grid of shifts (Eqs. 31-33), and their information.

        Image `i` has the slice `slices[i]` `(K,)`, V, and weights `weights[rows[i]]` `(K,)`, w, of `weights` `(m, K)`;
        of `images` and `powers` `(n, S)`, S >= K, the first K components of row i are C X and C^2.  `frequencies`
        `(K, 2)` are different integers kx from 0 to L and ky from -L to L.  What is returned are bare sums over the
        listed components: weights hold the factor 2 of sums over the full plane.

        Returns
        -------
        tables : (n, 2 H + 1, 2 H + 1)
            `out[i, H + y, H + x] = sum_k Re( w conj(V) X e(ky, y) e(kx, x) )`, with
            `e(k, d) = cosines[|k|, |d|] + i sign(k d) sines[|k|, |d|]`; the arrays are `(L + 1, H + 1)`, and sines
            vanish in their first row and column.  For plain correlations they hold cos and sin of `2 pi k d / N`; any
            linear map of the tables along their axes that treats d and -d alike, such as a taper or the filter that
            makes coefficients of splines, can be applied to them beforehand.
        moments : (n, 4)
            `sum_k w C^2 |V|^2 (1, kx^2, kx ky, ky^2)`: power of the prediction, and its Fisher information in shifts.
        """
        ...

    def cc_cost(self, tables: F32, rows: I32, shifts: F64, *, threads: int = 0) -> F64:
        """Values and derivatives `(n, 6)` of cubic B-splines with coefficients `tables` `(m, S, S)`, S odd.

        Item `i` is table `rows[i]`, axes `(y, x)`, at `shifts[i]`, x and y in points from the middle of the table.
        Columns are the value, its gradient in x and y, and its second derivatives xx, xy and yy, per point; all zero
        where any of the 4 x 4 coefficients around the shift lies outside, and where it is not finite.
        """
        ...
