"""Geometry: rotations, projection matrices, orientation and translation grids, point groups."""
