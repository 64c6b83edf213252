"""Compute kernels: contracts, backend selection, and the float64 NumPy oracle of every kernel."""
