"""Alignment of tilt series and motion of particles (Eqs. 31-42)."""
