"""The data of a refinement as its options name them; the same in every process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from tiltwise.em.data_model import DataModel, RelionStackModel, StackModel
from tiltwise.em.focus import Focus, extracted_before
from tiltwise.em.options import DataModelOptions, RefineOptions
from tiltwise.em.orientation_prior import TERMS, OrientationPrior
from tiltwise.em.pseudo_model import PseudoModel, StoredSums, TiltSums
from tiltwise.errors import ConfigError
from tiltwise.extract.cache import ParticleCache
from tiltwise.extract.images import ParticleImages
from tiltwise.extract.source import Poses
from tiltwise.geometry.symmetry import symmetry_matrices
from tiltwise.kernels.api import Backend
from tiltwise.maps.initial import initial_noise_power
from tiltwise.maps.inputs import read_set, source_of
from tiltwise.maps.masks import MASK_EDGE_PX
from tiltwise.maps.options import ImageOptions
from tiltwise.model import OptimisationSet


def load_set(options: DataModelOptions, warn: Callable[[str], None] = lambda text: None) -> OptimisationSet:
    """Tilt series and particles; of the latter those that any tilt image shows, `warn` being told of the others.

    Raises
    ------
    ConfigError, DataError
        see `ParticleSource`; and if so many particles are lost that their coordinates must be wrong.
    """
    optset = read_set(options, need_images=None)
    if _has_sums(options, optset):
        return optset
    seen, lost = source_of(options, optset).leave_out_unseen(Poses.of(optset).displacement_angstrom)
    if lost is None:
        return optset
    warn(lost)
    return replace(optset, particles=optset.particles.take(np.flatnonzero(seen)))


def refuse_search_of_mates(options: RefineOptions, optset: OptimisationSet, warn: Callable[[str], None]) -> None:
    """Symmetry mates of one particle must not find each other's poses; warns where they would count several times.

    Raises
    ------
    ConfigError
        if all orientations or those of all mates are searched, and the set is expanded by its symmetry.
    """
    particles = optset.particles
    if not particles.has_mates:
        return
    local = options.sigma_ang is not None or options.healpix_order >= options.auto_local_healpix_order
    if not (local or options.reference is None or options.skip_align):
        raise ConfigError(
            "a set that is expanded by its symmetry is searched everywhere",
            where="--healpix-order, --sigma-ang",
            expected="a local search: all mates of a particle would find the same best pose, and count as one",
            found=f"{len(particles)} particles that are mates of {len(set(particles.source))}",
            fix="give --sigma-ang well below the angle between mates, or --skip-align; or refine the set from before",
        )
    if options.relax_symmetry != "C1":
        raise ConfigError(
            "a set that is expanded by its symmetry holds all mates already",
            where="--relax-sym",
            expected="C1: all mates of a particle would find the same best pose, and count as one",
            found=f"{options.relax_symmetry}, and {len(particles)} particles that are mates of "
            f"{len(set(particles.source))}",
            fix="leave --relax-sym out, or refine the set from before it was expanded",
        )
    warn_of_mates(options.symmetry, warn)


def warn_of_mates(symmetry: str, warn: Callable[[str], None]) -> None:
    """Warns if a map of symmetry mates has a `symmetry` beyond C1; several are separated by commas."""
    if set(symmetry.split(",")) != {"C1"}:
        warn(
            f"the particles are symmetry mates of each other, and --sym {symmetry} puts each where the others "
            "are as well: on an expanded set the symmetry is C1"
        )


def _has_sums(options: DataModelOptions, optset: OptimisationSet) -> bool:
    """Whether pseudo-subtomograms are asked for and the particle file names them."""
    return options.data_model == "pseudo3d" and bool(optset.particles.image_files) and not optset.stacks_are_2d


def diameter_of(options: ImageOptions, optset: OptimisationSet) -> float:
    """Diameter of the particle in Å; as large as the box allows if the options have none."""
    pixel = optset.series[0].pixel_size_angstrom * options.binning
    return options.particle_diameter or (options.map_size - 2 * MASK_EDGE_PX) * pixel


def data_model(
    options: RefineOptions,
    optset: OptimisationSet,
    backend: Backend,
    threads: int,
    keep: Callable[[int, int], int],
    before_load: Callable[[], None] = lambda: None,
    focus: Focus | None = None,
) -> DataModel:
    """Images as --data-model and --likelihood of a refinement ask for; see `images_of`."""
    diameter = focus.frame.diameter_angstrom if focus is not None else diameter_of(options, optset)
    return images_of(
        options,
        optset,
        backend,
        threads,
        keep,
        before_load,
        focus,
        exact=options.likelihood == "exact",
        masked=diameter if options.zero_mask else None,
    )


def images_of(
    options: DataModelOptions,
    optset: OptimisationSet,
    backend: Backend,
    threads: int,
    keep: Callable[[int, int], int],
    before_load: Callable[[], None],
    focus: Focus | None = None,
    *,
    exact: bool,
    masked: float | None,
) -> DataModel:
    """Images as --data-model asks for, with the exact likelihood or RELION's.

    Pseudo-subtomograms that the particle file names are read, others are made in memory.

    Parameters
    ----------
    masked
        diameter in Å of the mask on the copy that is scored; None does not mask.
    keep
        called with the box, and the bytes that all tilt images would take; gives those in which images may be kept.
    before_load
        called before the images of every particle are read for the first time; may raise.
    focus
        part of the particle that images are centred on, where `optset` has it; the rest is taken off them.

    Raises
    ------
    ConfigError, DataError
        see `ParticleSource` and `tiltwise.em.pseudo_model.StoredSums`.
    """
    pseudo = options.data_model == "pseudo3d"
    if _has_sums(options, optset):
        if focus is not None:
            raise extracted_before()
        stored = StoredSums(optset, need_multiplicity=not exact)
        keep(stored.box, 0)
        return PseudoModel(optset, stored, exact=exact, diameter_angstrom=masked)
    source = source_of(options, optset, None if pseudo else masked)
    source.rest = None if focus is None else focus.rest(source, backend)
    poses = Poses.of(optset)
    cache = ParticleCache(source, keep(source.box, int(ParticleCache.sizes(source).sum())))
    if not pseudo:
        return StackModel(cache) if exact else RelionStackModel(cache)
    noise = None
    if exact:

        def load(particle: int) -> ParticleImages:
            before_load()
            return cache.load(particle, poses.displacement_angstrom[particle], 0)

        noise = initial_noise_power(source, load, threads, lambda n: None)
    return PseudoModel(optset, TiltSums(cache, backend, noise), exact=exact, diameter_angstrom=masked)


def orientation_of(options: RefineOptions, optset: OptimisationSet) -> OrientationPrior | None:
    """What the particle file says of orientations, as far as the options ask for it."""
    sigmas = {name: getattr(options, f"sigma_{name}") for name in TERMS}
    group = options.symmetry if options.relax_symmetry == "C1" else options.relax_symmetry
    return OrientationPrior.of(optset.particles, sigmas, symmetry_matrices(group))
