"""tiltwise: macromolecular structures from cryo-electron tomography tilt series."""

from __future__ import annotations

__version__ = "0.1.0"
