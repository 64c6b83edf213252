"""Pseudo-subtomograms that RELION-5 wrote (--b 128 --crop 64), as a refinement sees them: against ours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tiltwise.em.pseudo_model import PseudoModel, StoredSums, TiltSums
from tiltwise.extract.cache import ParticleCache
from tiltwise.extract.source import ParticleSource, Poses
from tiltwise.io.optimisation_set import load_optimisation_set
from tiltwise.kernels.select import load_backend
from tiltwise.maps.whitening import noise_weight


class EveryVoxel(TiltSums):
    """All voxels, as of stored sums."""

    def reached(self) -> NDArray[np.bool_] | None:
        return None


@pytest.mark.parametrize("likelihood", ["exact", "relion"])
def test_stored_and_made_subtomograms_are_alike(shared_data: Path, likelihood: str) -> None:
    """RELION sums slices of the whole box, twice as fine: the same signal, interpolated better."""
    golden, exact = shared_data / "golden/refine", likelihood == "exact"
    star = golden / "relion/pseudo3d/particles.star"
    files = load_optimisation_set(golden / "optimisation_set.star", particles=star)
    stored = PseudoModel(files, StoredSums(files, need_multiplicity=not exact), exact=exact, diameter_angstrom=210.0)
    optset = load_optimisation_set(golden / "optimisation_set.star")
    source = ParticleSource(optset, box_px=128, crop_px=64, binning=1.0, diameter_angstrom=None)
    noise = [np.ones((series.n_tilts, source.disc.n_shells)) for series in optset.series] if exact else None
    sums = EveryVoxel(ParticleCache(source, 0), load_backend("auto"), noise)
    made = PseudoModel(optset, sums, exact=exact, diameter_angstrom=210.0)
    for row, name in enumerate(files.particles.name):
        own = optset.particles.name.index(name)
        found = stored.load(row, Poses.of(files).displacement_angstrom[row])
        expected = made.load(own, Poses.of(optset).displacement_angstrom[own])
        a, b = (image.masked[0].astype(np.complex128) for image in (found, expected))
        assert (a.conj() * b).real.sum() >= 0.98 * np.linalg.norm(a) * np.linalg.norm(b)  # 0.989 to 0.996
        assert np.corrcoef(found.ctf2[0], expected.ctf2[0])[0, 1] >= 0.99  # 0.997
        np.testing.assert_allclose(found.ctf2.sum(), expected.ctf2.sum(), rtol=0.005)
        if found.samples is not None and expected.samples is not None:
            np.testing.assert_allclose(found.samples.sum(), expected.samples.sum(), rtol=0.005)
        # sigma^2 of the two, in shells of many components: 0.93 and 0.92 on average
        power = [(image.power / noise_weight(image, stored.ball))[0, 4:31] for image in (found, expected)]
        np.testing.assert_allclose((power[0] / power[1]).mean(), 1.0, atol=0.12)
