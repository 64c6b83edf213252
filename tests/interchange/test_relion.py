"""RELION-4 and RELION-5 projects: positions, angles and unknown columns from one to the other and back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tiltwise.cli.main import main
from tiltwise.errors import DataError, FormatError
from tiltwise.geometry.projection import depth_offset_px, project_points
from tiltwise.geometry.rotations import angular_distance_deg
from tiltwise.interchange.options import ImportOptions
from tiltwise.interchange.programs import choose
from tiltwise.interchange.relion import with_image_size
from tiltwise.interchange.relion_forms import even_sizes, mirrored_back, to_relion4, to_relion5
from tiltwise.interchange.run import visibility
from tiltwise.io.documents import Documents
from tiltwise.io.mrc import ImageStack
from tiltwise.io.optimisation_set import load_optimisation_set, write_particles, write_tomograms
from tiltwise.io.particles import CENTRED_LABELS, PIXEL_LABELS, particle_block_name
from tiltwise.io.star import read_star, write_star
from tiltwise.io.tomograms import ANGLE_LABELS, MATRIX_LABELS, SIZE_LABELS
from tiltwise.model import OptimisationSet
from tiltwise.model.poses import poses_of

IMAGE = (3710, 3838)


def load(particles: Path, tomograms: Path, image: tuple[int, int] = IMAGE) -> OptimisationSet:
    return with_image_size(load_optimisation_set(particles, tomograms=tomograms, need_images=False), image)


def write(optset: OptimisationSet, folder: Path) -> tuple[Path, Path]:
    folder.mkdir()
    write_tomograms(folder / "tomograms.star", optset)
    write_particles(folder / "particles.star", optset)
    return folder / "particles.star", folder / "tomograms.star"


def seen(optset: OptimisationSet) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Projections and defocus offsets of all particles in all tilts, one after the other."""
    _, positions = poses_of(optset)
    tomogram = np.array(optset.particles.tomogram, dtype=object)
    points, defocus = [], []
    for one in optset.series:
        own = positions[tomogram == one.name] / one.pixel_size_angstrom
        points.append(project_points(one.projection, own)[..., :2].reshape(-1, 2))
        depth = depth_offset_px(one.projection, own, one.tomogram_size) * one.pixel_size_angstrom * one.hand
        defocus.append((depth + one.defocus_u_angstrom).ravel())
    return np.concatenate(points), np.concatenate(defocus)


def largest_differences(a: OptimisationSet, b: OptimisationSet) -> tuple[float, float, float]:
    """Projected positions in pixels, orientations in degrees, defocus in Å."""
    (points_a, defocus_a), (points_b, defocus_b) = seen(a), seen(b)
    angle = angular_distance_deg(poses_of(a)[0], poses_of(b)[0])
    return (
        float(np.abs(points_a - points_b).max()),
        float(angle.max()) if len(angle) else 0.0,
        float(np.abs(defocus_a - defocus_b).max()),
    )


def columns(path: Path, block: str) -> dict[str, list[str]]:
    return read_star(path)[block].columns


@pytest.fixture(scope="module")
def relion5(tutorial: Path) -> OptimisationSet:
    return load(tutorial / "Refine3D/job074/run_data.star", tutorial / "Polish/job070/tomograms.star")


def test_relion5_to_4_to_5_on_the_tutorial(relion5: OptimisationSet, tmp_path: Path) -> None:
    assert len(relion5.particles) == 9053
    four, notes = to_relion4(relion5)
    assert any("no 2D stacks" in note for note in notes)
    files4 = write(four, tmp_path / "four")
    read4 = load(*files4)
    position, angle, defocus = largest_differences(relion5, read4)
    assert position <= 0.01
    assert angle <= 1e-3
    assert defocus <= 0.01
    # written as RELION-4 wants it
    assert set(MATRIX_LABELS) <= set(columns(files4[1], "TS_01"))
    assert not set(ANGLE_LABELS) & set(columns(files4[1], "TS_01"))
    assert set(PIXEL_LABELS) <= set(columns(files4[0], "particles"))
    assert not set(CENTRED_LABELS) & set(columns(files4[0], "particles"))
    documents = read4.documents
    assert isinstance(documents, Documents)
    assert documents.coordinates.offset == 1.0

    five, _ = to_relion5(read4)
    files5 = write(five, tmp_path / "five")
    read5 = load(*files5)
    position, angle, defocus = largest_differences(relion5, read5)
    assert position <= 0.01
    assert angle <= 1e-3
    assert defocus <= 0.01
    # every column of the file the project began with is there, and what did not change has its text
    before = read_star(relion5.paths["particles"])["particles"].columns
    after = columns(files5[0], "particles")
    lost = {"rlnImageName", "rlnTomoVisibleFrames"}  # of 2D stacks, which RELION-4 has not
    assert set(before) - set(after) == lost
    changed = {label for label in before.keys() & after.keys() if before[label] != after[label]}
    assert changed <= set(CENTRED_LABELS)
    names = [one.name for one in relion5.series]
    table = read_star(relion5.paths["tomograms"])["global"].columns
    again = columns(files5[1], "global")
    assert {label for label in table if table[label] != again.get(label)} == {"rlnTomoTiltSeriesStarFile"}
    old = relion5.documents
    assert isinstance(old, Documents)
    for name in names:
        series = old.tilt_tables[name][name].columns
        new = columns(files5[1].parent / f"tilt_series/{name}.star", name)
        assert {label for label in series if series[label] != new.get(label)} <= set(ANGLE_LABELS)


def test_import_keeps_the_tutorial_as_it_is(tutorial: Path, relion5: OptimisationSet, tmp_path: Path) -> None:
    options = ImportOptions(
        input=tutorial / "Refine3D/job074/run_data.star",
        tomograms=tutorial / "Polish/job070/tomograms.star",
        output=tmp_path,
        image_size="3710,3838",
    )
    imported = choose(options).read(options)
    assert max(largest_differences(relion5, imported.optset)) <= 1e-6
    files = write(imported.optset, tmp_path / "set")
    before, after = read_star(relion5.paths["particles"]), read_star(files[0])
    assert [block.columns for block in before] == [block.columns for block in after]


@pytest.mark.parametrize("name", ["220728_TS_01", "220728_TS_03", "220728_TS_43", "220728_TS_45", "220728_TS_54"])
def test_matrices_of_real_series_become_their_angles(shared_data: Path, tmp_path: Path, name: str) -> None:
    """Files with both: 41 matrices are imported, the angles beside them are known."""
    folder = shared_data / "data/relion_projection_matrices/tilt_series"
    both = read_star(folder / f"{name}.star")[name]
    known = np.stack([both.floats(label) for label in ANGLE_LABELS], axis=1)
    block = both.copy()
    block.drop(*ANGLE_LABELS)
    (tmp_path / "tomograms.star").write_text(
        "data_global\n\nloop_\n_rlnTomoName\n_rlnTomoSizeX\n_rlnTomoSizeY\n_rlnTomoSizeZ\n_rlnTomoHand\n"
        "_rlnTomoTiltSeriesPixelSize\n_rlnVoltage\n_rlnSphericalAberration\n_rlnAmplitudeContrast\n"
        f"{name} 4000 4000 3000 -1 1.35 300 2.7 0.1\n\ndata_{name}\n\nloop_\n"
        + "".join(f"_{label}\n" for label in block.columns)
        + "\n".join(" ".join(row) for row in zip(*block.columns.values(), strict=True))
        + "\n"
    )
    options = ImportOptions(input=tmp_path / "tomograms.star", output=tmp_path, image_size="3710,3838")
    program = choose(options)
    assert program.source == "relion4"
    optset = program.read(options).optset
    write_tomograms(tmp_path / "out.star", optset)
    written = read_star(tmp_path / f"tilt_series/{name}.star")[name]
    found = np.stack([written.floats(label) for label in ANGLE_LABELS], axis=1)
    assert len(found) == 41
    assert np.abs(found - known)[:, :3].max() <= 2e-5
    assert np.abs(found - known)[:, 3:].max() <= 1.35e-3  # 0.001 pixel: the matrices are single precision
    np.testing.assert_array_equal(written.floats("rlnMicrographPreExposure"), both.floats("rlnMicrographPreExposure"))


def test_mirrored_matrices_are_turned_right(relion5: OptimisationSet, tmp_path: Path) -> None:
    four, _ = to_relion4(relion5)
    read4 = load(*write(four, tmp_path / "four"))
    mirror = np.diag([1.0, 1.0, -1.0, 1.0])
    mirror[2, 3] = 2000.0
    flipped = replace(read4, series=tuple(replace(one, projection=one.projection @ mirror) for one in read4.series))
    turned, notes = mirrored_back(flipped)
    assert any("mirror image" in note for note in notes)
    np.testing.assert_allclose(np.linalg.det(turned.series[0].projection[:, :3, :3]), 1.0, atol=1e-5)
    # positions and defocus of every particle are where they were; orientations are mirrored in the particle too
    (points, defocus), (points_now, defocus_now) = seen(flipped), seen(turned)
    np.testing.assert_allclose(points_now, points, atol=1e-6)
    np.testing.assert_allclose(defocus_now, defocus, atol=1e-6)
    z = np.diag([1.0, 1.0, -1.0])
    np.testing.assert_allclose(poses_of(turned)[0], z @ poses_of(flipped)[0] @ z, atol=1e-12)
    # and the file says the same, priors included
    five, _ = to_relion5(turned)
    files = write(five, tmp_path / "five")
    assert largest_differences(load(*files), turned)[0] <= 1e-3
    before = read_star(relion5.paths["particles"])["particles"].floats("rlnAngleTiltPrior")
    np.testing.assert_array_equal(read_star(files[0])["particles"].floats("rlnAngleTiltPrior"), -before)


# ---- odd and unset sizes ------------------------------------------------------------------------------------

STACKS = "data/relion5_stack2d_outputs"


def stack(folder: Path, job: str, particle: int) -> NDArray[np.float64]:
    path = folder / f"Extract/{job}/Subtomograms/session1_TS_1/{particle}_stack2d.mrcs"
    images = ImageStack(str(path))
    return np.stack([images.window(i, slice(None), slice(None)) for i in range(31)]).astype(np.float64)


def displacement(images: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """(x, y) by which the content of `other` lies from that of `images`, from the phases of low frequencies."""
    frequency = np.fft.fftfreq(images.shape[-1])
    ky, kx = np.meshgrid(frequency, frequency, indexing="ij")
    low = np.hypot(kx, ky) < 0.2
    k = np.stack([kx[low], ky[low]], axis=1)
    cross = np.fft.fft2(images)[:, low] * np.conj(np.fft.fft2(other)[:, low])
    weight, phase = np.abs(cross), np.angle(cross) / (2 * np.pi)
    return np.stack([np.linalg.lstsq(k * w[:, None], p * w, rcond=None)[0] for w, p in zip(weight, phase, strict=True)])


def stack_set(folder: Path, kind: str, tmp_path: Path, **choice: str) -> OptimisationSet:
    """The particles with the tomogram set of one kind of size."""
    options = ImportOptions(
        input=folder / "input/particle.star",
        tomograms=folder / f"input/tilt_series_{kind}.star",
        output=tmp_path,
        image_size="630,630",
        **choice,
    )
    return choose(options).read(options).optset


@pytest.mark.parametrize("kind", ["filled", "odd", "-999", "blank"])
def test_positions_are_where_relion5_extracted(shared_data: Path, tmp_path: Path, kind: str) -> None:
    """RELION's own stacks for the same coordinates and four kinds of tomogram size, against those of even sizes."""
    folder = shared_data / STACKS
    even = stack_set(folder, "filled", tmp_path)
    here = stack_set(folder, kind, tmp_path)
    assert all(size % 2 == 0 and size > 0 for size in here.series[0].tomogram_size)
    moved = (seen(here)[0] - seen(even)[0]).reshape(2, 31, 2)
    for particle in (0, 1):
        # A box that is cut further to the right shows its content further to the left.
        found = -displacement(stack(folder, "job001_even", particle + 1), stack(folder, f"job001_{kind}", particle + 1))
        # The stacks are cut by a soft circle that does not move: 0.1 pixel at the median, half a pixel is told apart.
        error = np.median(np.abs(found - moved[particle]), axis=0)
        assert (error <= 0.2).all()
    size = {"filled": 0.0, "odd": 0.5, "-999": -0.5, "blank": -0.5}[kind]
    middle = moved[:, 15]  # zero tilt, no rotation
    np.testing.assert_allclose(middle, np.full((2, 2), size), atol=1e-5)


@pytest.mark.parametrize("kind", ["odd", "-999", "blank"])
def test_a_program_with_one_centre(shared_data: Path, tmp_path: Path, kind: str) -> None:
    folder = shared_data / STACKS
    even = stack_set(folder, "filled", tmp_path)
    here = stack_set(folder, kind, tmp_path, odd_centre="consistent")
    np.testing.assert_allclose(seen(here)[0], seen(even)[0], atol=1e-5)


def test_even_sizes_change_no_image(tutorial: Path, tmp_path: Path) -> None:
    document = read_star(tutorial / "Polish/job070/tomograms.star")
    for label, size in zip(SIZE_LABELS, (4001, 3999, 2001), strict=True):
        document["global"].set_integers(label, [size] * 5)
    write_star(tutorial / "Polish/job070/odd.star", document)
    odd = load(tutorial / "Refine3D/job074/run_data.star", tutorial / "Polish/job070/odd.star")
    even, notes = even_sizes(odd)
    assert len(notes) == 1
    assert even.series[0].tomogram_size == (4000, 3998, 2000)
    position, angle, defocus = largest_differences(odd, even)
    assert position == angle == 0.0
    assert defocus <= 1e-6
    five, _ = to_relion5(even)
    written = load(*write(five, tmp_path / "set"))
    position, angle, defocus = largest_differences(odd, written)
    assert position <= 1e-4
    assert angle <= 1e-3
    assert defocus <= 1e-3


# ---- what comes beside --------------------------------------------------------------------------------------


def test_a_tomogram_set_alone(tutorial: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tutorial)
    out = tmp_path / "out"
    assert main(["import", "--i", "Tomograms/job006/tomograms.star", "--o", str(out), "--quiet"]) == 0
    assert not (out / "particles.star").exists()
    text = (out / "optimisation_set.star").read_text()
    assert "rlnTomoTomogramsFile" in text
    assert "rlnTomoParticlesFile" not in text
    report = (out / "report.html").read_text()
    assert "5 tilt series, 203 tilts; no particles" in report


@pytest.mark.parametrize(
    ("particles", "count"),
    [
        ("Extract/job020/particles.star", 9442),
        ("Refine3D/job023/run_data.star", 9442),
        ("Polish/job030/particles.star", 9053),
        ("Polish/job070/particles.star", 9053),
    ],
)
def test_every_particle_file_of_the_tutorial(tutorial: Path, tmp_path: Path, particles: str, count: int) -> None:
    options = ImportOptions(
        input=tutorial / particles,
        tomograms=tutorial / "Tomograms/job006/tomograms.star",
        output=tmp_path,
        image_size="3710,3838",
    )
    optset = choose(options).read(options).optset
    assert visibility(optset) == (count, 41.0)  # all project into an image, half of them into every one
    assert {float(one.pre_exposure.max()) for one in optset.series} == {120.0}
    assert [one.n_tilts for one in optset.series] == [40, 40, 41, 41, 41]


@pytest.mark.parametrize("name", ["Extract/job020/optimisation_set.star", "Refine3D/job074/run_optimisation_set.star"])
def test_a_missing_file_of_a_set_is_named(tutorial: Path, tmp_path: Path, name: str) -> None:
    options = ImportOptions(input=tutorial / name, output=tmp_path)
    with pytest.raises(FormatError, match=r"(TomogramsFile|TrajectoriesFile) is missing(?s:.*)(Denoise|motion\.star)"):
        choose(options).read(options)


@pytest.mark.parametrize(
    "name", ["CtfFind/job003/tilt_series_ctf.star", "ExcludeTiltImages/job004/selected_tilt_series.star"]
)
def test_series_that_are_not_aligned_are_refused(tutorial: Path, tmp_path: Path, name: str) -> None:
    options = ImportOptions(input=tutorial / name, output=tmp_path)
    with pytest.raises(FormatError, match=r"no geometry(?s:.*)align the tilt series first"):
        choose(options).read(options)


def test_the_wrong_version_is_refused(tutorial: Path, tmp_path: Path) -> None:
    options = ImportOptions(
        input=tutorial / "Refine3D/job074/run_data.star",
        tomograms=tutorial / "Polish/job070/tomograms.star",
        source="relion4",
        output=tmp_path,
    )
    with pytest.raises(DataError, match="--from relion5"):
        choose(options).read(options)


def test_a_particle_block_gets_its_name(relion5: OptimisationSet, tmp_path: Path) -> None:
    """Files of Python tools call the block anything; RELION looks for `particles`."""
    documents = relion5.documents
    assert isinstance(documents, Documents)
    table = documents.particle_table.copy()
    table["particles"].name = ""
    five, _ = to_relion5(replace(relion5, documents=replace(documents, particle_table=table)))
    assert isinstance(five.documents, Documents)
    assert particle_block_name(five.documents.particle_table) == "particles"
