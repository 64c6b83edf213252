"""Optics: contrast transfer function, radiation damage, aberrations."""
