"""The data of a refinement as its options name them; the same in every process."""

from __future__ import annotations

from tiltwise.em.options import RefineOptions
from tiltwise.em.orientation_prior import TERMS, OrientationPrior
from tiltwise.extract.source import ParticleSource
from tiltwise.geometry.symmetry import symmetry_matrices
from tiltwise.io.optimisation_set import load_optimisation_set
from tiltwise.maps.masks import MASK_EDGE_PX
from tiltwise.model import OptimisationSet


def load_set(options: RefineOptions) -> OptimisationSet:
    """Tilt series and particles."""
    return load_optimisation_set(
        options.input,
        tomograms=options.tomograms,
        particles=options.particles,
        trajectories=options.trajectories,
        need_images=None,
        coordinate_binning=options.coordinate_binning,
    )


def diameter_of(options: RefineOptions, optset: OptimisationSet) -> float:
    """Diameter of the particle in Å; as large as the box allows if the options have none."""
    pixel = optset.series[0].pixel_size_angstrom * options.binning
    return options.particle_diameter or (options.map_size - 2 * MASK_EDGE_PX) * pixel


def source_of(options: RefineOptions, optset: OptimisationSet) -> ParticleSource:
    """Loader of particle images."""
    return ParticleSource(
        optset,
        box_px=options.box,
        crop_px=options.map_size,
        binning=options.binning,
        diameter_angstrom=diameter_of(options, optset) if options.zero_mask else None,
    )


def orientation_of(options: RefineOptions, optset: OptimisationSet) -> OrientationPrior | None:
    """What the particle file says of orientations, as far as the options ask for it."""
    sigmas = {name: getattr(options, f"sigma_{name}") for name in TERMS}
    return OrientationPrior.of(optset.particles, sigmas, symmetry_matrices(options.symmetry))
