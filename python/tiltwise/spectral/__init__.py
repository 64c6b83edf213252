"""Fourier transforms, shells, Fourier shell correlation, masks, filters."""
