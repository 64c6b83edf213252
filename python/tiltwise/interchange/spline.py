"""Grids of Warp: natural cubic splines through the nodes of a regular grid, axis by axis."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from tiltwise.io.foreign.warp import WarpGrid

F64 = NDArray[np.float64]


def grid_values(grid: WarpGrid, coordinates: F64) -> F64:
    """Values `(N,)` at coordinates `(N, A)` in [0, 1], order x, y, z (, w); outside the spline goes on as it ends.

    A of the coordinates may be larger than the number of axes of the grid; an axis of one node is constant.
    """
    axes = grid.values.ndim
    values: F64 = grid.values.reshape(1, len(grid.values), -1)
    for axis in range(axes - 1, -1, -1):  # the slowest axis of the array comes last in a coordinate
        nodes = grid.values.shape[axes - 1 - axis]
        weights = _weights(_scaled(coordinates[:, axis], grid.margins[axis]), nodes)
        values = values.reshape(len(values), nodes, -1)
        values = weights @ values[0] if len(values) == 1 else np.einsum("nk,nkr->nr", weights, values)
    return np.asarray(values.reshape(-1))


def fixed_axis(grid: WarpGrid, coordinate: float) -> WarpGrid:
    """Grid without its slowest axis, at a coordinate of that axis in [0, 1]."""
    weights = _weights(_scaled(np.array([coordinate]), grid.margins[grid.values.ndim - 1]), len(grid.values))[0]
    return WarpGrid(np.tensordot(weights, grid.values, axes=1), grid.margins[: grid.values.ndim - 1])


def _scaled(coordinates: F64, margin: float) -> F64:
    return coordinates * (1.0 - 2.0 * margin) + margin


def _weights(at: F64, nodes: int) -> F64:
    """(N, nodes): what every node adds to the spline at coordinates in [0, 1]."""
    if nodes == 1:
        return np.ones((len(at), 1))
    return np.asarray(_basis(nodes)(at))


@cache
def _basis(nodes: int) -> CubicSpline:
    return CubicSpline(np.linspace(0.0, 1.0, nodes), np.eye(nodes), bc_type="natural")
