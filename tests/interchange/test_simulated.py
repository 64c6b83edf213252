"""A simulated set, told in the words of other programs: its import projects, weighs and focuses the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tiltwise.cli.main import main
from tiltwise.geometry.projection import angles_from_projection_matrices
from tiltwise.geometry.rotations import euler_to_matrix, rotation_z
from tiltwise.interchange.relion_forms import to_relion4
from tiltwise.io.mrc import open_stack, write_map
from tiltwise.io.optimisation_set import load_optimisation_set, write_particles, write_tomograms
from tiltwise.io.star import read_star
from tiltwise.model import OptimisationSet, TiltSeries
from tiltwise.sim.options import SimulateOptions

TINY = {
    "tilt_series": 2,
    "particles": 12,
    "width_px": 96,
    "height_px": 80,
    "thickness": 300.0,
    "pixel_size": 8.0,
    "box": 24,
    "particle_diameter": 90.0,
    "beads": 20,
    "tilt_step": 12.0,
    "snr": 1.0,
    "spacing": 0.0,
    "margin_px": 16,
}


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> OptimisationSet:
    folder = tmp_path_factory.mktemp("simulated") / "data"
    assert main(["simulate", *SimulateOptions(output=folder, **TINY).to_arguments(), "--quiet"]) == 0
    return load_optimisation_set(folder / "optimisation_set.star")


def common_files(folder: Path, one: TiltSeries) -> None:
    """Order of acquisition, defocus of the stack and a link to it."""
    order = np.argsort(one.pre_exposure)
    lines = [f"{i},{one.nominal_tilt_deg[k]:.3f}\n" for i, k in enumerate(order, 1)]
    (folder.parent / f"{one.name}.csv").write_text("".join(lines))
    sections = np.argsort(one.image_index)
    table = [
        f"{i} {one.defocus_u_angstrom[k]:.3f} {one.defocus_v_angstrom[k]:.3f} {one.defocus_angle_deg[k]:.4f} 0 0.1 9\n"
        for i, k in enumerate(sections, 1)
    ]
    (folder / f"{one.name}_ctffind4.txt").write_text("".join(table))
    (folder / f"{one.name}.mrc").symlink_to(one.image_files[0])


def as_imod(folder: Path, one: TiltSeries) -> None:
    """`.xf` and `.tlt` in the order of the sections; angles with an offset that eTomo would have added."""
    angles = angles_from_projection_matrices(one.projection, one.pixel_size_angstrom, one.tomogram_size, one.image_size)
    sections = np.argsort(one.image_index)
    inverse = np.swapaxes(rotation_z(angles.z_rot_deg)[:, :2, :2], 1, 2)
    # RELION-5 turns about N // 2, IMOD about (N - 1) / 2 of image and tomogram
    half = one.projection[:, :3, :3] @ np.full(3, 0.5) - np.array([0.5, 0.5, 0.0])
    shift = np.stack([angles.x_shift_angstrom, angles.y_shift_angstrom], axis=1) / one.pixel_size_angstrom - half[:, :2]
    moved = -np.einsum("fij,fj->fi", inverse, shift)
    rows = np.concatenate([inverse.reshape(-1, 4), moved], axis=1)[sections]
    (folder / f"{one.name}.xf").write_text("".join(" ".join(f"{v:.7f}" for v in row) + "\n" for row in rows))
    (folder / f"{one.name}.tlt").write_text("".join(f"{a:.4f}\n" for a in angles.y_tilt_deg[sections]))
    (folder / f"{one.name}.rawtlt").write_text("".join(f"{a:.3f}\n" for a in one.nominal_tilt_deg[sections]))
    size = one.tomogram_size
    (folder / "tilt.com").write_text(
        f"$tilt -StandardInput\nInputProjections {one.name}_ali.mrc\nTILTFILE {one.name}.tlt\n"
        f"THICKNESS {size[2]}\nFULLIMAGE {size[0]} {size[1]}\n"
    )


def as_aretomo(folder: Path, one: TiltSeries) -> None:
    """`.aln` in the order of the angles."""
    angles = angles_from_projection_matrices(one.projection, one.pixel_size_angstrom, one.tomogram_size, one.image_size)
    order = np.argsort(one.nominal_tilt_deg)
    head = [
        "# AreTomo Alignment / Priims bprmMn",
        f"# RawSize = {one.image_size[0]} {one.image_size[1]} {one.n_tilts}",
        "# NumPatches = 0",
        "# AlphaOffset =     0.00",
        "# BetaOffset =     0.00",
        f"# Thickness = {one.tomogram_size[2]}",
    ]
    rows = [
        f"{i} {angles.z_rot_deg[k]:.6f} 1.0 {angles.x_shift_angstrom[k] / one.pixel_size_angstrom:.5f} "
        f"{angles.y_shift_angstrom[k] / one.pixel_size_angstrom:.5f} 1 1 1 0 {angles.y_tilt_deg[k]:.4f}"
        for i, k in enumerate(order)
    ]
    (folder / f"{one.name}.aln").write_text("\n".join([*head, *rows]) + "\n")
    sections = np.argsort(one.image_index)
    (folder / f"{one.name}.rawtlt").write_text("".join(f"{a:.3f}\n" for a in one.nominal_tilt_deg[sections]))
    # AreTomo's own table has the rows of its alignment; of the two, this one is taken
    lines = (folder / f"{one.name}_ctffind4.txt").read_text().splitlines()
    by_row = [" ".join([str(i), *lines[one.image_index[k]].split()[1:]]) for i, k in enumerate(order, 1)]
    head = "# Columns: #1 micrograph number; #2 - defocus 1 [A]; #3 - defocus 2"
    (folder / f"{one.name}_CTF.txt").write_text("\n".join([head, *by_row]) + "\n")


@pytest.mark.parametrize("program", ["imod", "aretomo"])
def test_the_same_set(simulated: OptimisationSet, tmp_path: Path, program: str) -> None:
    for one in simulated.series:
        folder = tmp_path / one.name
        folder.mkdir()
        common_files(folder, one)
        (as_imod if program == "imod" else as_aretomo)(folder, one)
        rows = [
            f"{','.join(f'{v:.4f}' for v in position)},{','.join(f'{a:.5f}' for a in angles)}\n"
            for name, position, angles in zip(
                simulated.particles.tomogram,
                simulated.particles.coordinate_px,
                simulated.particles.angles_deg,
                strict=True,
            )
            if name == one.name
        ]
        picks = tmp_path / f"{one.name}_picks"
        picks.mkdir()
        (picks / f"{one.name}.csv").write_text("x,y,z,rot,tilt,psi\n" + "".join(rows))
        dose = np.diff(np.sort(one.pre_exposure))[0]
        size = ",".join(map(str, one.tomogram_size))
        arguments = ["import", "--i", str(folder), "--from", program, "--o", str(tmp_path / f"{one.name}_out")]
        arguments += ["--order-list", str(tmp_path / f"{one.name}.csv"), "--dose", f"{dose:.6f}"]
        arguments += ["--p", str(picks), "--coord-units", "px", "--coord-origin", "corner", "--coord-first", "0"]
        arguments += ["--coord-binning", "1", "--tomogram-size", size, f"--hand={one.hand:.0f}", "--quiet"]
        assert main(arguments) == 0
        same(simulated, one, load_optimisation_set(tmp_path / f"{one.name}_out/optimisation_set.star"))


def same(known: OptimisationSet, one: TiltSeries, found: OptimisationSet) -> None:
    """Every view and particle of a series, whatever the order of views."""
    other = found.series[0]
    assert (other.name, other.n_tilts, other.hand) == (one.name, one.n_tilts, one.hand)
    assert other.pixel_size_angstrom == pytest.approx(one.pixel_size_angstrom)
    rows = [list(other.image_index).index(section) for section in one.image_index]
    for name, tolerance in (
        ("nominal_tilt_deg", 1e-3),
        ("pre_exposure", 1e-4),
        ("defocus_u_angstrom", 1e-2),
        ("defocus_v_angstrom", 1e-2),
        ("defocus_angle_deg", 1e-3),
    ):
        assert np.abs(getattr(other, name)[rows] - getattr(one, name)).max() <= tolerance, name
    own = np.flatnonzero(np.array(known.particles.tomogram, dtype=object) == one.name)
    position = known.particles.coordinate_px[own]
    difference = other.project(found.particles.coordinate_px)[:, rows] - one.project(position)
    assert np.abs(difference[..., :2]).max() <= 0.01
    # depth counts relative to the middle of the tomogram
    depth = difference[..., 2] - difference[:1, :, 2]
    assert np.abs(depth).max() <= 0.01
    here, there = (euler_to_matrix(angles) for angles in (found.particles.angles_deg, known.particles.angles_deg[own]))
    assert np.abs(here.swapaxes(1, 2) @ there - np.eye(3)).max() <= np.radians(1e-3)
    with open_stack(other.image_files[0]) as mine, open_stack(one.image_files[0]) as theirs:
        for row, section in zip(rows, one.image_index, strict=True):
            np.testing.assert_array_equal(mine.section(int(other.image_index[row])), theirs.section(int(section)))


def test_the_same_set_from_relion_4(simulated: OptimisationSet, tmp_path: Path) -> None:
    """With images at hand: their size is that of the stack, and RELION-4 gets the stack it wants."""
    four, notes = to_relion4(simulated)
    assert not any("one file per tilt" in note for note in notes)
    write_tomograms(tmp_path / "tomograms.star", four)
    write_particles(tmp_path / "particles.star", four)
    assert "rlnTomoTiltSeriesName" in read_star(tmp_path / "tomograms.star")["global"]
    arguments = ["import", "--i", str(tmp_path / "particles.star"), "--t", str(tmp_path / "tomograms.star")]
    assert main([*arguments, "--o", str(tmp_path / "out"), "--quiet"]) == 0
    found = load_optimisation_set(tmp_path / "out/optimisation_set.star")
    assert found.particles.name == simulated.particles.name
    for one, other in zip(simulated.series, found.series, strict=True):
        assert other.image_files == one.image_files
        np.testing.assert_array_equal(other.image_index, one.image_index)
        np.testing.assert_array_equal(other.defocus_u_angstrom, one.defocus_u_angstrom)
        rows = np.array(simulated.particles.tomogram, dtype=object) == one.name
        difference = other.project(found.particles.coordinate_px[rows]) - one.project(
            simulated.particles.coordinate_px[rows]
        )
        assert np.abs(difference[..., :2]).max() <= 1e-3


def as_warp(folder: Path, one: TiltSeries) -> None:
    """`.xml` with an average per tilt beside a movie that is not there; angles with Warp's sign."""
    angles = angles_from_projection_matrices(one.projection, one.pixel_size_angstrom, one.tomogram_size, one.image_size)
    assert np.abs(angles.x_tilt_deg).max() < 1e-6
    pixel, image = one.pixel_size_angstrom, np.array(one.image_size)
    volume = np.array(one.tomogram_size, np.float64)
    offset = (one.projection[:, :2] @ np.append(volume / 2.0, 1.0) - image / 2.0) * pixel
    (folder / "frames/average").mkdir(parents=True)
    (folder / "series").mkdir()
    with open_stack(one.image_files[0]) as stack:
        for i, section in enumerate(one.image_index):
            write_map(folder / f"frames/average/{one.name}_{i}.mrc", stack.section(int(section))[None], pixel)
    columns = {
        "Angles": -angles.y_tilt_deg,
        "Dose": one.pre_exposure,
        "AxisAngle": angles.z_rot_deg,
        "AxisOffsetX": offset[:, 0],
        "AxisOffsetY": offset[:, 1],
        "MoviePath": [f"../frames/{one.name}_{i}.tif" for i in range(one.n_tilts)],
    }
    grids = {
        "GridCTF": 0.5 * (one.defocus_u_angstrom + one.defocus_v_angstrom) / 1e4,
        "GridCTFDefocusDelta": (one.defocus_u_angstrom - one.defocus_v_angstrom) / 1e4,
        "GridCTFDefocusAngle": one.defocus_angle_deg,
    }
    text = [
        f'<TiltSeries AreAnglesInverted="{one.hand < 0}" '
        f'ImageDimensionsAngstrom="{image[0] * pixel}, {image[1] * pixel}" '
        f'VolumeDimensionsAngstrom="{", ".join(str(v * pixel) for v in volume)}">',
        *(f"<{tag}>" + "\n".join(map(str, values)) + f"</{tag}>" for tag, values in columns.items()),
        f'<CTF><Param Name="PixelSize" Value="{pixel}" /><Param Name="Voltage" Value="{one.voltage_kv}" />'
        f'<Param Name="Cs" Value="{one.spherical_aberration_mm}" />'
        f'<Param Name="Amplitude" Value="{one.amplitude_contrast}" /></CTF>',
    ]
    for tag, values in grids.items():
        nodes = "".join(f'<Node X="0" Y="0" Z="{i}" Value="{value}" />' for i, value in enumerate(values))
        text.append(f'<{tag} Width="1" Height="1" Depth="{one.n_tilts}">{nodes}</{tag}>')
    (folder / f"series/{one.name}.xml").write_text("\n".join([*text, "</TiltSeries>\n"]))


def test_the_same_set_from_warp(simulated: OptimisationSet, tmp_path: Path) -> None:
    one = simulated.series[0]
    as_warp(tmp_path, one)
    rows = np.flatnonzero(np.array(simulated.particles.tomogram, dtype=object) == one.name)
    position, angles = simulated.particles.coordinate_px[rows], simulated.particles.angles_deg[rows]
    lines = [
        f"{one.name}.tomostar {' '.join(f'{v / 2.0:.6f}' for v in place)} {' '.join(f'{a:.6f}' for a in turn)}"
        for place, turn in zip(position, angles, strict=True)
    ]
    labels = [
        "rlnMicrographName",
        *(f"rlnCoordinate{axis}" for axis in "XYZ"),
        "rlnAngleRot",
        "rlnAngleTilt",
        "rlnAnglePsi",
    ]
    picks = tmp_path / "picks.star"
    picks.write_text("\ndata_\n\nloop_\n" + "".join(f"_{label}\n" for label in labels) + "\n".join(lines) + "\n")
    arguments = ["import", "--i", str(tmp_path / "series"), "--p", str(picks), "--coord-binning", "2"]
    assert main([*arguments, "--o", str(tmp_path / "out"), "--quiet"]) == 0
    found = load_optimisation_set(tmp_path / "out/optimisation_set.star")
    other = found.series[0]
    assert (other.name, other.hand, other.image_size) == (one.name, one.hand, one.image_size)
    for name in ("defocus_u_angstrom", "defocus_v_angstrom", "defocus_angle_deg", "pre_exposure"):
        np.testing.assert_allclose(getattr(other, name), getattr(one, name), rtol=0, atol=1e-3)
    difference = other.project(found.particles.coordinate_px) - one.project(position)
    assert np.abs(difference[..., :2]).max() <= 0.01
    assert np.abs(difference[..., 2] - difference[:1, :, 2]).max() <= 0.01
    here, there = (euler_to_matrix(values) for values in (found.particles.angles_deg, angles))
    assert np.abs(here.swapaxes(1, 2) @ there - np.eye(3)).max() <= np.radians(1e-3)
    with open_stack(one.image_files[0]) as theirs:
        for file, section in zip(other.image_files, one.image_index, strict=True):
            with open_stack(file) as mine:
                np.testing.assert_allclose(mine.section(0), theirs.section(int(section)), rtol=1e-6)
