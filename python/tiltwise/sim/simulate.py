"""`tiltwise simulate`: tilt series with known truth, RELION-5 metadata with planted errors, and the truth."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiltwise.config import OutputOptions
from tiltwise.exec import Job, Progress
from tiltwise.exec.threads import ordered_map
from tiltwise.files import write_error, write_text
from tiltwise.geometry.deformation import Deformation
from tiltwise.geometry.projection import is_visible
from tiltwise.geometry.rotations import matrix_to_euler
from tiltwise.io.mrc import write_map
from tiltwise.io.optimisation_set import (
    write_optimisation_set,
    write_particles,
    write_tomograms,
    write_trajectories,
)
from tiltwise.kernels.threads import default_threads
from tiltwise.model import OpticsGroup, OptimisationSet, Particles, TiltSeries
from tiltwise.sim.images import SeriesImager, noise_image
from tiltwise.sim.microscope import OPTICS_GROUP, TiltParameters, stated_parameters, true_deformation, true_parameters
from tiltwise.sim.models import Model, load_model
from tiltwise.sim.options import SimulateOptions
from tiltwise.sim.specimen import (
    Poses,
    aligned_rotations,
    axis_frames,
    place_on_lattice,
    place_on_sphere,
    place_particles,
    random_rotations,
    rocked,
    smooth_motion,
    uniform_rotations,
)
from tiltwise.spectral.filters import low_pass

F64 = NDArray[np.float64]

_DEFAULT_SNR = 0.1
_CALIBRATION_PARTICLES = 16
"""Particles of the first series whose images define the energy of the signal."""

# First number after the seed of every random stream: streams do not depend on each other's length.
_MICROSCOPE, _SPECIMEN, _ERRORS, _NOISE, _DEFORMATION, _HINGE = range(6)


@dataclass(frozen=True, slots=True)
class SeriesTruth:
    """One simulated tilt series: what is true and what its metadata state."""

    name: str
    true: TiltParameters
    stated: TiltParameters
    true_poses: Poses
    stated_poses: Poses
    displacement_px: F64
    """(F, P, 3) along tomogram axes"""
    deformation: Deformation | None
    """of the images, which the metadata do not state"""
    hinge_deg: F64 | None = None
    """(P,) angles of the domains of particles that bend"""
    domain_poses: Poses | None = None
    """of these domains"""


@dataclass(frozen=True, slots=True)
class SimulatedData:
    """What a simulation wrote."""

    folder: Path
    optimisation_set: Path
    reference: Path
    """true map, low-passed: a start for refinements"""
    truth: Path
    """truth/truth.json"""
    true_map: Path
    noise_sigma: float
    snr: float
    """energy of a particle image over that of the noise inside its disc, as `SimulateOptions.snr`"""
    n_particles: int
    n_tilts: int
    particle_diameter_angstrom: float
    imaging_box_px: int
    outputs: tuple[Path, ...]


def run(options: SimulateOptions, job: Job, progress: Progress) -> SimulatedData:
    """Simulate into the job's folder, report progress, record results.  Raises as `simulate`."""
    n_tilts = len(true_parameters(options, np.random.default_rng(0)).stage_deg)
    facts = {"series": options.tilt_series, "tilts": n_tilts, "particles": options.tilt_series * options.particles}
    progress.title("Simulate tilt series", facts)
    with progress.task("tilt images", options.tilt_series * n_tilts) as task:

        def advance(n: int) -> None:
            job.check_abort()
            task.advance(n)

        with job.timing("simulate"):
            data = simulate(options, folder=job.folder, advance=advance)
    for name in ("noise_sigma", "snr", "n_particles", "n_tilts"):
        job.metric(name, getattr(data, name))
    for path in data.outputs:
        job.add_output(path)
    return data


def simulate(
    options: SimulateOptions, *, folder: Path | None = None, advance: Callable[[int], None] = lambda n: None
) -> SimulatedData:
    """Simulate tilt series into a folder (`options.output` unless given).

    The folder receives `tilt_series/TS_01.mrcs` and `.star`, `tomograms.star`, `particles.star`,
    `optimisation_set.star` (all with the errors of the options), the starting reference `ref<N>.mrc`, and
    `truth/`: `truth.json` with every true parameter, `reference.mrc`, and the same STAR files without errors; of
    particles that bend also `still.mrc`, `domain.mrc`, and `domain_particles.star`, the poses of the domains.
    Equal options give equal images, whatever the number of threads.

    Parameters
    ----------
    advance
        called with the number of tilt images done, from any thread; may raise `Aborted`.

    Raises
    ------
    ConfigError
        if the particles do not fit, or the model does not fit the box.
    FormatError
        if the model cannot be read.
    OutputError
        if the folder cannot be written.
    """
    folder = Path(options.output if folder is None else folder)
    threads = options.threads or default_threads()
    model = load_model(options)
    everything = [_draw_series(options, model, i) for i in range(options.tilt_series)]
    imagers = [_imagers(options, model, one) for one in everything]
    whole = _imager(options, model, everything[0], everything[0].true_poses)
    _make_folders(folder)
    disc = np.pi * (model.diameter_angstrom / 2 / options.pixel_size) ** 2
    energy = whole.mean_energy(slice(0, _CALIBRATION_PARTICLES)) if options.signal else 0.0
    sigma = options.noise
    if sigma is None:
        sigma = float(np.sqrt(energy / disc / (options.snr or _DEFAULT_SNR)))
    outputs = []
    for index, (one, of_series) in enumerate(zip(everything, imagers, strict=True)):
        stack = _images(options, of_series, index, sigma, threads, advance)
        outputs.append(folder / "tilt_series" / f"{one.name}.mrcs")
        write_map(outputs[-1], stack, options.pixel_size, options.precision)
    reference = folder / f"ref{options.reference_resolution:g}.mrc"
    write_map(reference, low_pass(model.map, options.pixel_size, options.reference_resolution), options.pixel_size)
    true_map = folder / "truth" / "reference.mrc"
    write_map(true_map, model.map, options.pixel_size)
    if model.bent is not None:
        for name, part in (("still", model.bent.still), ("domain", model.bent.domain)):
            write_map(folder / "truth" / f"{name}.mrc", part.map, options.pixel_size)
    truth = folder / "truth" / "truth.json"
    write_text(truth, json.dumps(_truth(options, everything, sigma), allow_nan=False))
    _write_set(folder / "truth", options, everything, true=True)
    # The stated set last: where it exists, everything it names is complete.
    optimisation_set = _write_set(folder, options, everything, true=False)
    return SimulatedData(
        folder=folder,
        optimisation_set=optimisation_set,
        reference=reference,
        truth=truth,
        true_map=true_map,
        noise_sigma=sigma,
        snr=energy / disc / sigma**2 if sigma > 0 else float("inf"),
        n_particles=options.tilt_series * options.particles,
        n_tilts=whole.series.n_tilts,
        particle_diameter_angstrom=model.diameter_angstrom,
        imaging_box_px=max(imager.box for of_series in imagers for imager in of_series),
        outputs=(optimisation_set, reference, true_map, truth, *outputs),
    )


def _draw_series(options: SimulateOptions, model: Model, index: int) -> SeriesTruth:
    name = f"TS_{index + 1:02d}"
    true = true_parameters(options, np.random.default_rng([options.seed, _MICROSCOPE, index]))
    rng = np.random.default_rng([options.seed, _SPECIMEN, index])
    rng_of_fields = np.random.default_rng([options.seed, _DEFORMATION, index])
    deformation = true_deformation(options, len(true.stage_deg), rng_of_fields)
    series = replace(true.series(name, options), deformation=deformation)
    margin = options.box / 2 if options.margin_px is None else options.margin_px

    def inside(points: F64) -> NDArray[np.bool_]:
        projected = series.project(points)[..., :2]
        return np.asarray(is_visible(projected, options.image_size, margin).all(axis=1))

    radius = model.diameter_angstrom / 2 / options.pixel_size
    spacing = (model.diameter_angstrom if options.spacing is None else options.spacing) / options.pixel_size
    n, size = options.particles, options.tomogram_size
    if options.membrane_radius is not None:
        sphere = options.membrane_radius / options.pixel_size
        position, normal = place_on_sphere(n, np.asarray(size) / 2.0, sphere, spacing, inside, rng)
        frame = axis_frames(normal)
        poses, known = Poses(position, rocked(frame, options.rocking, rng), frame), Poses(position, frame, frame)
    elif options.lattice is not None:
        position = place_on_lattice(n, size, options.lattice / options.pixel_size, inside)
    else:
        position = place_particles(n, size, radius, spacing, inside, rng)
    if options.membrane_radius is None:
        known = poses = Poses(position, _orientations(options, rng))
    step = options.motion / options.pixel_size
    displacement = smooth_motion(position, options.tomogram_size, true.acquisition, step, rng)
    angle, domains = None, None
    if model.bent is not None:
        angle = np.random.default_rng([options.seed, _HINGE, index]).uniform(-options.hinge, options.hinge, n)
        domains = Poses(*model.bent.hinge.turned(position, poses.rotation, angle, options.pixel_size))
    errors = np.random.default_rng([options.seed, _ERRORS, index])
    return SeriesTruth(
        name=name,
        true=true,
        stated=stated_parameters(true, options, errors),
        true_poses=poses,
        stated_poses=known.perturbed(options.error_position / options.pixel_size, options.error_orientation, errors),
        displacement_px=displacement,
        deformation=deformation,
        hinge_deg=angle,
        domain_poses=domains,
    )


def _orientations(options: SimulateOptions, rng: np.random.Generator) -> F64:
    if options.orientations == "aligned":
        return aligned_rotations(options.particles, rng, options.rocking)
    draw = uniform_rotations if options.orientations == "uniform" else random_rotations
    return draw(options.particles, rng)


def _imagers(options: SimulateOptions, model: Model, one: SeriesTruth) -> list[SeriesImager]:
    """One of every rigid part."""
    if model.bent is None or one.domain_poses is None:
        return [_imager(options, model, one, one.true_poses)]
    parts = ((model.bent.still, one.true_poses), (model.bent.domain, one.domain_poses))
    return [_imager(options, part, one, poses) for part, poses in parts]


def _imager(options: SimulateOptions, model: Model, one: SeriesTruth, poses: Poses) -> SeriesImager:
    series = replace(one.true.series(one.name, options), deformation=one.deformation)
    return SeriesImager.create(model, series, poses.position_px, one.displacement_px, poses.rotation)


def _images(
    options: SimulateOptions,
    imagers: list[SeriesImager],
    index: int,
    sigma: float,
    threads: int,
    advance: Callable[[int], None],
) -> NDArray[np.float32]:
    width, height = options.image_size
    stack = np.zeros((imagers[0].series.n_tilts, height, width), np.float32)

    def draw(tilt: int) -> None:
        if options.signal:
            for imager in imagers:
                stack[tilt] += imager.image(tilt)
        if sigma > 0:
            rng = np.random.default_rng([options.seed, _NOISE, index, tilt])
            stack[tilt] += noise_image((width, height), sigma, options.noise_exponent, rng)
        advance(1)

    ordered_map(draw, range(len(stack)), threads)
    return stack


def _make_folders(folder: Path) -> None:
    for path in (folder / "tilt_series", folder / "truth" / "tilt_series"):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(path, error) from error


def _write_set(folder: Path, options: SimulateOptions, everything: list[SeriesTruth], *, true: bool) -> Path:
    """Optimisation set with the true or the stated parameters; the images are those of the stated set."""
    images = folder.parent if true else folder
    series: list[TiltSeries] = []
    for one in everything:
        parameters = one.true if true else one.stated
        described = parameters.series(one.name, options, str((images / f"tilt_series/{one.name}.mrcs").absolute()))
        series.append(replace(described, deformation=one.deformation if true else None))
    poses = [one.true_poses if true else one.stated_poses for one in everything]
    n = options.particles * len(everything)
    names = tuple(f"{one.name}/{i + 1}" for one in everything for i in range(options.particles))
    frame = np.concatenate([one.subtomogram for one in poses])
    displacement = np.concatenate([one.displacement_px.transpose(1, 0, 2) for one in everything])
    optset = OptimisationSet(
        series=tuple(series),
        particles=Particles(
            name=names,
            tomogram=tuple(one.name for one in everything for _ in range(options.particles)),
            coordinate_px=np.concatenate([one.position_px for one in poses]),
            origin_angstrom=np.zeros((n, 3)),
            angles_deg=matrix_to_euler(np.swapaxes(frame, -1, -2) @ np.concatenate([one.rotation for one in poses])),
            subtomogram_angles_deg=matrix_to_euler(frame),
            half_set=np.arange(n) % 2 + 1,
            optics_index=np.zeros(n, np.int64),
            image_files=(),
            ctf_files=(),
            visible=(),
        ),
        optics=(
            OpticsGroup(
                number=1,
                name=OPTICS_GROUP,
                voltage_kv=options.voltage,
                spherical_aberration_mm=options.spherical_aberration,
                amplitude_contrast=options.amplitude_contrast,
                pixel_size_angstrom=options.pixel_size,
            ),
        ),
        trajectories={},
        stacks_are_2d=True,
        documents=None,
        paths={},
    )
    files: dict[str, Path] = {key: folder / f"{key}.star" for key in ("tomograms", "particles")}
    write_tomograms(files["tomograms"], optset)
    # RELION's columns for an axis: rot is free
    axis = {"rlnAngleTiltPrior": np.full(n, 90.0), "rlnAnglePsiPrior": np.zeros(n)}
    write_particles(files["particles"], optset, extra_columns=axis if options.membrane_radius is not None else None)
    domains = [one.domain_poses for one in everything if one.domain_poses is not None]
    if true and domains:
        moved = replace(
            optset.particles,
            coordinate_px=np.concatenate([one.position_px for one in domains]),
            angles_deg=matrix_to_euler(np.swapaxes(frame, -1, -2) @ np.concatenate([one.rotation for one in domains])),
        )
        write_particles(folder / "domain_particles.star", replace(optset, particles=moved))
    if true and options.motion > 0:
        files["trajectories"] = folder / "motion.star"
        motion = {name: d * options.pixel_size for name, d in zip(names, displacement, strict=True)}
        write_trajectories(files["trajectories"], motion)
    path = folder / "optimisation_set.star"
    write_optimisation_set(path, **files)
    return path


def _truth(options: SimulateOptions, everything: list[SeriesTruth], sigma: float) -> dict[str, Any]:
    """Every true parameter by tilt series; `args` repeats what is needed to read them."""
    args = {
        "model": options.model,
        "apix": options.pixel_size,
        "box": options.box,
        "tomos": options.tilt_series,
        "n": options.particles,
        "size": list(options.tomogram_size),
        "sigma": sigma,
        "hand": options.hand,
        "seed": options.seed,
        "options": options.model_dump(mode="json", exclude={*OutputOptions.model_fields, "threads"}),
    }
    tomograms = {}
    for one in everything:
        true, poses = one.true, one.true_poses
        rot, tilt, psi = poses.angles_deg.T
        values = {
            "xtilt": true.x_tilt_deg,
            "ytilt": true.y_tilt_deg,
            "zrot": true.z_rot_deg,
            "xshift": true.x_shift_angstrom,
            "yshift": true.y_shift_angstrom,
            "defocus": true.defocus_angstrom,
            "astig": true.astigmatism_angstrom,
            "azimuth": true.azimuth_deg,
            "scale": true.scale,
            "dose": true.pre_exposure,
            "position_px": poses.position_px,
            "rot": rot,
            "tilt": tilt,
            "psi": psi,
            "displacement_px": one.displacement_px,
        }
        if one.hinge_deg is not None:
            values["hinge_deg"] = one.hinge_deg
        if one.deformation is not None:
            values["deformation"] = one.deformation.coefficients
        tomograms[one.name] = {key: array.tolist() for key, array in values.items()}
    return {"args": args, "tomograms": tomograms}
