"""Particle images from tilt series, built in memory: 2D stacks and pseudo-subtomograms (Eqs. 8-10)."""
