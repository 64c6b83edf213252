"""AreTomo: global alignment as RELION-5 reads it, local alignment as displacements of particles, joins by angle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers.foreign import ALN
from tiltwise.cli.main import main
from tiltwise.errors import ConfigError, DataError
from tiltwise.geometry.projection import project_points, projection_matrices_from_angles
from tiltwise.interchange import aretomo
from tiltwise.interchange.options import ImportOptions
from tiltwise.io.foreign.aretomo import read_aln
from tiltwise.io.mrc import write_map
from tiltwise.io.optimisation_set import load_optimisation_set


def real_aln(shared_data: Path, name: str) -> Path:
    path = shared_data / "data/pypi_formats/alnfile" / name
    if not path.is_file():
        pytest.skip(f"there is no {path}")
    return path


def options_of(path: Path, folder: Path, stage_deg: np.ndarray, **values: object) -> ImportOptions:
    order = folder / "order.csv"
    order.write_text("".join(f"{i},{angle:.2f}\n" for i, angle in enumerate(sorted(stage_deg, key=abs), 1)))
    defaults: dict[str, object] = {"pixel_size": 1.5, "order_list": order, "dose_per_view": 3.0}
    return ImportOptions(input=path, output=folder / "out", **{**defaults, **values})


@pytest.mark.parametrize("name", ["global_no_local.aln", "global_and_local.aln"])
def test_global_alignment(shared_data: Path, tmp_path: Path, name: str) -> None:
    path = real_aln(shared_data, name)
    alignment = read_aln(path)
    stage = np.concatenate([alignment.dark_tilt_deg, alignment.nominal_tilt_deg])
    imported = aretomo.read(options_of(path, tmp_path, stage, tomogram_size="4096,4096,2000"))
    series = imported.optset.series[0]
    known = projection_matrices_from_angles(
        np.zeros(len(alignment.tilt_deg)),
        alignment.tilt_deg,
        alignment.rotation_deg,
        alignment.shift_px[:, 0] * 1.5,
        alignment.shift_px[:, 1] * 1.5,
        1.5,
        (4096, 4096, 2000),
        (4096, 4096),
    )
    np.testing.assert_allclose(series.projection, known, atol=1e-9)
    # dark views were recorded too: they count in the dose, by angle
    rank = np.searchsorted(np.sort(np.abs(np.round(stage, 2))), np.abs(np.round(alignment.nominal_tilt_deg, 2)))
    assert np.abs(series.pre_exposure / 3.0 - rank).max() <= 1  # +a and -a are as near to zero
    assert (alignment.local is None) == (series.deformation is None)


def test_size_of_the_tomogram(shared_data: Path, tmp_path: Path) -> None:
    path = real_aln(shared_data, "global_and_local.aln")
    alignment = read_aln(path)
    stage = np.concatenate([alignment.dark_tilt_deg, alignment.nominal_tilt_deg])
    imported = aretomo.read(options_of(path, tmp_path, stage))
    assert imported.optset.series[0].tomogram_size == (4096, 4096, 1910)
    assert any("--tomogram-size" in note for note in imported.notes)


def test_local_alignment_of_a_real_series(shared_data: Path, tmp_path: Path) -> None:
    """Particles where the patches are: they are displaced as the patches were measured."""
    path = real_aln(shared_data, "global_and_local.aln")
    alignment = read_aln(path)
    local = alignment.local
    assert local is not None
    seen = local.position_px.transpose(1, 0, 2)
    found = aretomo.displacement(local, seen, (4096, 4096))
    # patches are a quarter of the image apart: the others have weights of 0.25 % or so
    difference = np.abs(found - local.shift_px.transpose(1, 0, 2))[local.good.T]
    assert np.median(difference) < 0.05
    assert difference.max() < 4.0  # of up to 73 pixels
    assert np.abs(found).max() > 20.0


def test_local_alignment_as_deformation(shared_data: Path, tmp_path: Path) -> None:
    """The same positions as by motion, but for what a spline cannot follow, and they survive the files."""
    path = real_aln(shared_data, "global_and_local.aln")
    alignment = read_aln(path)
    stage = np.concatenate([alignment.dark_tilt_deg, alignment.nominal_tilt_deg])
    options = options_of(path, tmp_path, stage, tomogram_size="4096,4096,2000")
    imported = aretomo.read(options)
    series = imported.optset.series[0]
    assert series.deformation is not None
    assert series.deformation.model.grid == (5, 5)
    assert any("12.1 pixels (r.m.s.) are met to 0.7" in text for text in imported.conventions)
    assert alignment.local is not None
    seen = alignment.local.position_px + np.array([2048, 2048]) + alignment.shift_px[:, None]
    inside = ((seen > 0) & (seen < 4096)).all(-1) & alignment.local.good
    found = series.deformation.displacement(seen.swapaxes(0, 1)).swapaxes(0, 1)
    error = np.linalg.norm(found - alignment.local.shift_px, axis=-1)[inside]
    assert np.sqrt(np.mean(error**2)) < 0.7
    left_out = aretomo.read(options.model_copy(update={"local_alignment": "ignore"}))
    assert left_out.optset.series[0].deformation is None
    assert any("ignored" in note for note in left_out.notes)
    with pytest.raises(ConfigError, match="no particles"):
        aretomo.read(options.model_copy(update={"local_alignment": "motion"}))


def make(folder: Path, *, rawtlt: bool = True) -> Path:
    """The alignment of the sample in folder, with a raw stack of 4 sections that is not in the order of tilt."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "TS.aln").write_text(ALN)
    write_map(folder / "TS.mrc", np.random.default_rng(4).normal(size=(4, 480, 512)), 1.5, "float32")
    if rawtlt:
        (folder / "TS.rawtlt").write_text("0.01\n3.0\n-3.01\n6.02\n")
    return folder


STAGE = np.array([0.01, 3.0, -3.01, 6.02])


def test_sections_are_found_by_angle(tmp_path: Path) -> None:
    folder = make(tmp_path)
    series = aretomo.read(options_of(folder, tmp_path, STAGE, tomogram_size="480,512,200")).optset.series[0]
    assert series.n_tilts == 3
    assert series.image_index.tolist() == [2, 0, 1]
    assert series.pre_exposure.tolist() == [6.0, 0.0, 3.0]
    np.testing.assert_allclose(series.nominal_tilt_deg, [-3.01, 0.01, 3.0])
    assert series.image_files[0] == str((folder / "TS.mrc").resolve())
    unknown = make(tmp_path / "b", rawtlt=False)
    imported = aretomo.read(options_of(unknown, tmp_path, STAGE, tomogram_size="480,512,200"))
    assert imported.optset.series[0].image_files == ()
    assert any("no angle per section" in note for note in imported.notes)


def test_ctf_of_aretomo(tmp_path: Path) -> None:
    """Three rows are those of the alignment; four cannot be told apart without their angles."""
    folder = make(tmp_path)
    head = "# Columns: #1 micrograph number; #2 - defocus 1 [A]; #3 - defocus 2; #4 - azimuth; #8 - dfHand\n"
    (folder / "TS_CTF.txt").write_text(head + "".join(f"{i} {20000 + i} 19000 {i} 0.5 0.1 9 1\n" for i in (1, 2, 3)))
    imported = aretomo.read(options_of(folder, tmp_path, STAGE, tomogram_size="480,512,200"))
    series = imported.optset.series[0]
    assert series.defocus_u_angstrom.tolist() == [20001, 20002, 20003]
    np.testing.assert_allclose(series.phase_shift_deg, np.degrees(0.5))
    assert any("defocus hand" in note for note in imported.notes)
    (folder / "TS_CTF.txt").write_text(head + "".join(f"{i} {20000 + i} 19000 {i} 0.5 0.1 9 1\n" for i in (1, 2, 3, 4)))
    with pytest.raises(DataError, match="cannot be told apart"):
        aretomo.read(options_of(folder, tmp_path, STAGE, tomogram_size="480,512,200"))
    angles = folder / "ctf.tlt"
    angles.write_text("6.02\n3.0\n0.01\n-3.01\n")
    options = options_of(folder, tmp_path, STAGE, tomogram_size="480,512,200", ctf_angles=angles)
    assert aretomo.read(options).optset.series[0].defocus_u_angstrom.tolist() == [20004, 20003, 20002]


def test_ctf_of_the_raw_stack(tmp_path: Path) -> None:
    """CTFFIND numbers sections of the raw stack: here they are not in the order of the alignment."""
    folder = make(tmp_path)
    text = "# Output from CTFFind version 4.1.14, run on 2023-02-02\n# Input file: TS.mrc ; Number of micrographs: 4\n"
    (folder / "TS_ctffind4.txt").write_text(text + "".join(f"{i} {20000 + i} 19000 0 0 0.1 9\n" for i in (1, 2, 3, 4)))
    options = options_of(folder, tmp_path, STAGE, tomogram_size="480,512,200")
    assert aretomo.read(options).optset.series[0].defocus_u_angstrom.tolist() == [20003, 20001, 20002]
    (folder / "TS.rawtlt").unlink()
    with pytest.raises(DataError, match="cannot be told apart"):
        aretomo.read(options)


def test_local_alignment_moves_particles(tmp_path: Path) -> None:
    """The projection of a displaced particle is where its patch was seen, and the rest of the set is as without."""
    folder = make(tmp_path / "aln")
    points = tmp_path / "points.csv"
    points.write_text("x,y,z\n240,256,100\n300.5,200,120\n")
    arguments = ["import", "--i", str(folder), "--o", str(tmp_path / "out"), "--p", str(points), "--coord-units", "px"]
    arguments += [
        "--coord-origin",
        "corner",
        "--coord-first",
        "0",
        "--coord-binning",
        "1",
        "--tomogram-size",
        "480,512,200",
        "--angpix",
        "1.5",
    ]
    options_of(folder, tmp_path, STAGE)
    arguments += ["--order-list", str(tmp_path / "order.csv"), "--dose", "3"]
    assert main(arguments) == 0
    optset = load_optimisation_set(tmp_path / "out/optimisation_set.star")
    series, alignment = optset.series[0], read_aln(folder / "TS.aln")
    assert alignment.local is not None
    for row, name in enumerate(optset.particles.name):
        position = optset.particles.coordinate_px[row]
        moved = position + optset.trajectories[name] / 1.5
        before = project_points(series.projection, position[None])[0]
        after = np.stack([project_points(series.projection[f : f + 1], moved[f][None])[0, 0] for f in range(3)])
        local = before[:, :2] - np.array([256.0, 240.0]) - alignment.shift_px
        expected = aretomo.displacement(alignment.local, local[None], (512, 480))[0]
        np.testing.assert_allclose((after - before)[:, :2], expected, atol=1e-4)
        np.testing.assert_allclose((after - before)[:, 2], 0, atol=1e-4)  # no defocus is added
        assert np.abs(expected).max() > 0.2
    assert main([*arguments[:3], "--o", str(tmp_path / "b"), *arguments[5:], "--local-alignment", "deformation"]) == 0
    other = load_optimisation_set(tmp_path / "b/optimisation_set.star")
    assert other.trajectories == {}
    assert other.series[0].deformation is not None
    # the patch that AreTomo rejected has no weight
    assert aretomo.displacement(alignment.local, np.array([[[0.0, 0.0], [101.0, 81.0], [0.0, 0.0]]]), (512, 480))[
        0, 1
    ].tolist() == pytest.approx([0.25, 0.0])
