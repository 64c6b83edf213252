"""Simulator of tilt series with known truth.

It projects by its own methods, exact sums of Gaussians or quintic splines on finely sampled transforms, so
that errors of the trilinear kernels cannot hide in the data that test them.
"""
