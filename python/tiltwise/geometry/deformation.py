"""Deformation of tilt images in their plane (Eq. 34): affine, Fourier and cubic spline fields, with their gradients.

A particle that the projection matrix puts at q, in unbinned pixels, appears at `q + W(q)`.  Every kind of field is a
sum of scalar functions of q times two-vectors, `W(q) = sum_k f_k(q) a_k`; coefficients are RELION's, in RELION's order,
each being one component of one a_k.  With image size (W, H):

affine
    `f = (dx, dy)`, dx and dy from the centre (W/2, H/2).  Three coefficients: xx, xy, yy with
    `W = (xx dx, xy dx + yy dy)`; what is left of a linear map is a turn in the plane, which belongs to the tilt.
spline
    bicubic Hermite on a grid of nodes that ends at the edges: value, slopes along x and y, and twist of every node, per
    cell; constant along the normal beyond the edges.
fourier
    cosines and sines of whole multiples of half a period over the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
DeformationKind = Literal["affine", "fourier", "spline"]

POSE_LIKE = 1e-6
"""Share of a field's power that turns, shifts and magnification must leave for it to count as a deformation."""


@dataclass(frozen=True, slots=True)
class DeformationModel:
    """A kind of field on images of a size."""

    kind: DeformationKind
    grid: tuple[int, int]
    """nodes of a spline along x and y, or what RELION counts waves by; of no effect on affine fields"""
    image_size: tuple[int, int]
    """(width, height) in unbinned pixels"""

    @property
    def waves(self) -> NDArray[np.int64]:
        """(n, 2) half periods of Fourier fields over the image, along x and y, in RELION's order."""
        nx, ny = self.grid
        found = []
        for j in range(ny):
            low = j < ny // 2
            first = 0 if low and j > 0 else 1
            found += [(x, j if low else j - ny) for x in range(first, nx // 2 + 1)]
        return np.array(found, np.int64).reshape(-1, 2)

    @property
    def placement(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """(C,) function and (C,) component, 0 or 1, that each coefficient multiplies."""
        if self.kind == "affine":
            return np.array([0, 0, 1], np.intp), np.array([0, 1, 1], np.intp)
        count = 2 * len(self.waves) if self.kind == "fourier" else 4 * self.grid[0] * self.grid[1]
        return np.tile(np.arange(count), 2), np.repeat(np.arange(2), count)

    @property
    def n_coefficients(self) -> int:
        """C."""
        return len(self.placement[0])

    def values(self, points: F64) -> F64:
        """Values (..., K) of the scalar functions at points (..., 2)."""
        size = np.asarray(self.image_size, dtype=np.float64)
        if self.kind == "affine":
            return np.asarray(points - size / 2.0)
        if self.kind == "fourier":
            phase = points @ (np.pi * self.waves / size).T
            return np.stack([np.cos(phase), np.sin(phase)], axis=-1).reshape(*phase.shape[:-1], -1)
        x, y = (_hermite(points[..., i], self.grid[i], size[i])[0] for i in (0, 1))
        return _of_nodes(x, y)

    def functions(self, points: F64) -> tuple[F64, F64]:
        """The same, and gradients (..., K, 2)."""
        size = np.asarray(self.image_size, dtype=np.float64)
        if self.kind == "affine":
            return self.values(points), np.broadcast_to(np.eye(2), (*points.shape, 2))
        if self.kind == "fourier":
            value, waves = self.values(points), np.pi * self.waves / size
            pairs = value.reshape(*value.shape[:-1], -1, 2)
            turned = np.stack([-pairs[..., 1], pairs[..., 0]], axis=-1)
            return value, (turned[..., None] * waves[:, None]).reshape(*value.shape, 2)
        (x, dx), (y, dy) = (_hermite(points[..., i], self.grid[i], size[i]) for i in (0, 1))
        return _of_nodes(x, y), np.stack([_of_nodes(dx, y), _of_nodes(x, dy)], axis=-1)

    def vectors(self, coefficients: F64) -> F64:
        """(..., K, 2) two-vectors of the functions from coefficients (..., C)."""
        which, axis = self.placement
        vectors = np.zeros((*coefficients.shape[:-1], int(which.max()) + 1, 2))
        vectors[..., which, axis] = coefficients
        return vectors

    def coefficients(self, vectors: F64) -> F64:
        """The transpose of `vectors`: (..., C) from (..., K, 2)."""
        which, axis = self.placement
        return np.asarray(vectors[..., which, axis])

    def pose_free_modes(self, *, magnification: bool) -> F64:
        """(C, M) coefficients of orthogonal fields, one pixel root mean square over the image, that no pose can make.

        Left out are shifts and turns of the image, and with `magnification` also its isotropic magnification: one that
        all tilts share cannot be told from the scale of the specimen.
        """
        axes = [_nodes(max(n - 1, 1), size) for n, size in zip(self.grid, self.image_size, strict=True)]
        points = np.stack(np.meshgrid(*(place for place, _ in axes), indexing="ij"), axis=-1).reshape(-1, 2)
        root = np.sqrt(np.outer(*(weight for _, weight in axes)).reshape(-1, 1, 1))
        value = self.values(points)
        which, axis = self.placement
        fields = np.zeros((len(points), 2, len(which)))
        fields[:, axis, np.arange(len(which))] = value[:, which]
        design = (fields * root).reshape(-1, len(which))
        arm = points - np.asarray(self.image_size) / 2.0
        one, zero = np.ones(len(arm)), np.zeros(len(arm))
        poses = [np.stack([one, zero], 1), np.stack([zero, one], 1), np.stack([-arm[:, 1], arm[:, 0]], 1)]
        pose = np.stack([*poses, arm] if magnification else poses, axis=-1) * root
        pose = np.linalg.qr(pose.reshape(2 * len(arm), -1))[0]
        left, singular, right = np.linalg.svd(design, full_matrices=False)
        kept = singular > 1e-7 * singular[0]
        shared = pose.T @ left[:, kept]
        share, turned = np.linalg.eigh(np.eye(int(kept.sum())) - shared.T @ shared)
        chosen = turned[:, share > POSE_LIKE][:, ::-1]
        return np.asarray((right[kept].T / singular[kept]) @ chosen)


def _nodes(cells: int, size: float) -> tuple[F64, F64]:
    """Places on an axis and weights that average over it: exact for squares of cubics in every cell."""
    place, weight = np.polynomial.legendre.leggauss(6)
    places = (np.arange(cells)[:, None] + (place + 1.0) / 2.0) * (size / cells)
    return places.ravel(), np.tile(weight / 2.0 / cells, cells)


def _of_nodes(x: F64, y: F64) -> F64:
    """(..., K) products of functions (..., nodes, 2) along the axes: value, slope along x, along y, twist of nodes."""
    product = y[..., :, None, :, None] * x[..., None, :, None, :]
    return product.reshape(*product.shape[:-4], -1)


def _hermite(position: F64, nodes: int, size: float) -> tuple[F64, F64]:
    """Cubic Hermite functions (..., nodes, 2) of the values and slopes at nodes, and their derivatives."""
    cell = size / (nodes - 1)
    place = np.clip(position / cell, 0.0, nodes - 1.0)
    left = np.minimum(np.floor(place), nodes - 2.0)
    t = place - left
    t2, t3 = t * t, t * t * t
    inside = ((position >= 0.0) & (position <= size)) / cell
    value = np.zeros((*position.shape, nodes, 2))
    slope = np.zeros_like(value)
    for node in range(nodes):
        begins, ends = left == node, left == node - 1
        value[..., node, 0] = begins * (2 * t3 - 3 * t2 + 1) + ends * (3 * t2 - 2 * t3)
        value[..., node, 1] = begins * (t3 - 2 * t2 + t) + ends * (t3 - t2)
        slope[..., node, 0] = (begins * (6 * t2 - 6 * t) + ends * (6 * t - 6 * t2)) * inside
        slope[..., node, 1] = (begins * (3 * t2 - 4 * t + 1) + ends * (3 * t2 - 2 * t)) * inside
    return value, slope


class Bent(NamedTuple):
    """A deformation at points (..., F, 2)."""

    displacement: F64
    """(..., F, 2) W"""
    jacobian: F64
    """(..., F, 2, 2) derivative of `q + W(q)` in q"""
    functions: F64
    """(..., F, K) of `DeformationModel.values`"""


@dataclass(frozen=True, slots=True, eq=False)
class Deformation:
    """Fields of the F images of a tilt series."""

    model: DeformationModel
    coefficients: F64
    """(F, C) of RELION; pixels, without unit if affine"""

    def displacement(self, points: F64) -> F64:
        """(..., F, 2) W at projected points (..., F, 2), unbinned pixels."""
        vectors = self.model.vectors(self.coefficients)
        return np.asarray(np.einsum("...fk,fki->...fi", self.model.values(points), vectors))

    def at(self, points: F64) -> Bent:
        """The same, with its derivatives."""
        value, slope = self.model.functions(points)
        vectors = self.model.vectors(self.coefficients)
        moved = np.einsum("...fk,fki->...fi", value, vectors)
        change = np.einsum("...fkj,fki->...fij", slope, vectors)
        return Bent(np.asarray(moved), np.asarray(np.eye(2) + change), value)

    def rows(self, order: NDArray[np.integer] | slice) -> Deformation:
        """Of some of the images, or in another order."""
        return Deformation(self.model, self.coefficients[order])
