"""A simulated set, told in the words of IMOD and of AreTomo: its import projects, weighs and focuses the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tiltwise.cli.main import main
from tiltwise.geometry.projection import angles_from_projection_matrices
from tiltwise.geometry.rotations import euler_to_matrix, rotation_z
from tiltwise.io.mrc import open_stack
from tiltwise.io.optimisation_set import load_optimisation_set
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
