"""Parts in one map: where they belong, whatever the refinement has turned them by, and nothing else touched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from helpers.half_maps import BOX, PIXEL, particle
from tiltwise.cli.main import main
from tiltwise.errors import ConfigError, DataError, FormatError, ShapeError
from tiltwise.io.mrc import read_map, write_map
from tiltwise.io.star import StarBlock, StarDocument, write_star
from tiltwise.jobs.job import FolderJob
from tiltwise.jobs.manifest import read_manifest
from tiltwise.jobs.progress import SilentProgress
from tiltwise.maps.focus import Frame
from tiltwise.maps.rigid import placed
from tiltwise.maps.whole import PART_LABELS
from tiltwise.post import composite
from tiltwise.post.options import CompositeOptions
from tiltwise.spectral.filters import low_pass
from tiltwise.spectral.masks import distances, soft_edge

TURN_DEG, SHIFT = np.array([1.5, -1.0, 2.0]), np.array([2.0, -1.5, 1.0])
"""By which the part has left the consensus as it was refined: degrees, Å."""


def sphere(centre: tuple[int, int, int], radius: float) -> NDArray[np.float32]:
    """Soft mask about a voxel z, y, x from the middle."""
    return np.roll(soft_edge(distances(BOX, 3), radius + 3, 5), centre, axis=(0, 1, 2)).astype(np.float32)


DOMAIN = sphere((7, -5, 3), 8.0)
NOISE = 0.05


def noisy(density: NDArray[np.float32], seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rng = np.random.default_rng([seed, 5])
    first, second = ((density + rng.normal(0.0, NOISE, density.shape)).astype(np.float32) for _ in range(2))
    return first, second


def write_part(folder: Path, *, turn: NDArray[np.float64], shift: NDArray[np.float64], seed: int) -> Frame:
    """The domain as it is, in its own box, turned and moved a little."""
    frame = Frame.of(DOMAIN, PIXEL, "mask")
    own = frame.moved(particle())
    rotation = Rotation.from_rotvec(np.radians(turn)).as_matrix()
    write(folder, placed(own, rotation, shift / PIXEL, BOX), seed)
    write_map(folder / "run_focus_mask.mrc", frame.mask, PIXEL)
    block = StarBlock("particles", "loop", {})
    for label, value in zip(PART_LABELS, frame.offset_angstrom, strict=True):
        block.set_floats(label, [value, value])
    write_star(folder / "run_data.star", StarDocument([block]))
    return frame


def write(folder: Path, density: NDArray[np.float32], seed: int) -> None:
    folder.mkdir(exist_ok=True)
    for number, half in enumerate(noisy(density, seed), 1):
        write_map(folder / f"run_half{number}_class001_unfil.mrc", half, PIXEL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A consensus whose domain is blurred, and the domain refined, once in place and once not."""
    folder = tmp_path_factory.mktemp("composite")
    blurred = particle() * (1.0 - DOMAIN) + low_pass(particle() * DOMAIN, PIXEL, 22.0)
    write(folder / "consensus", blurred, 1)
    write_part(folder / "still", turn=np.zeros(3), shift=np.zeros(3), seed=2)
    write_part(folder / "moved", turn=TURN_DEG, shift=SHIFT, seed=2)
    return folder


def made(folder: Path, output: Path, parts: str, **changes: bool) -> composite.CompositeResult:
    names = ",".join(str(folder / name) for name in parts.split(","))
    options = CompositeOptions(input=folder / "consensus", parts=names, output=output, **changes)
    with FolderJob(options, ["tiltwise", "composite"], SilentProgress()) as job:
        return composite.run(options, job, SilentProgress())


def error(density: NDArray[np.float32]) -> float:
    """Root mean square of what a map is off inside the domain, over that of the truth."""
    inside = DOMAIN > 0.99
    return float(np.sqrt(((density - particle())[inside] ** 2).mean() / (particle()[inside] ** 2).mean()))


def test_a_part_replaces_the_consensus_inside_its_mask(folder: Path, tmp_path: Path) -> None:
    result = made(folder, tmp_path / "job", "still")
    (part,) = result.parts
    assert np.abs(part.mask - DOMAIN).max() < 1e-5  # whole voxels are moved exactly
    outside = DOMAIN == 0
    for half, whole in zip(result.halves, (result.consensus.first, result.consensus.second), strict=True):
        np.testing.assert_allclose(half[outside], whole[outside], atol=1e-5)
    noise = NOISE / np.sqrt(2.0) / np.sqrt((particle()[DOMAIN > 0.99] ** 2).mean())
    assert error(result.map) < 1.1 * noise < 0.7 * error(result.consensus.mean)
    assert not part.turn_deg.any()
    assert not part.shift_angstrom.any()
    assert 0.7 < part.scale < 1.0  # the consensus is blurred
    for name, expected in zip(("half1", "half2"), result.halves, strict=True):
        np.testing.assert_array_equal(read_map(tmp_path / "job" / f"{name}.mrc")[0], expected)


def test_a_part_that_has_moved_is_laid_on_the_consensus(folder: Path, tmp_path: Path) -> None:
    result = made(folder, tmp_path / "job", "moved")
    (part,) = result.parts
    back = Rotation.from_rotvec(np.radians(TURN_DEG)).inv()
    np.testing.assert_allclose(part.turn_deg, np.degrees(back.as_rotvec()), atol=0.4)
    np.testing.assert_allclose(part.shift_angstrom, -back.apply(SHIFT), atol=0.1 * PIXEL)
    left = made(folder, tmp_path / "left", "moved", fit=False)
    assert error(result.map) < 0.6 * error(left.map)


def test_parts_share_where_they_overlap(folder: Path, tmp_path: Path) -> None:
    """Two refinements of one part: the mean of them."""
    write_part(folder / "again", turn=np.zeros(3), shift=np.zeros(3), seed=3)
    result = made(folder, tmp_path / "job", "still,again", fit=False)
    inside = DOMAIN > 0.99
    one, two = (np.mean(part.halves, axis=0) for part in result.parts)
    np.testing.assert_allclose(result.map[inside], (one + two)[inside] / 2, atol=1e-5)
    assert np.abs(one - two)[inside].max() > NOISE
    assert result.share.max() <= 1.0


def test_a_part_of_other_half_sets_is_told(folder: Path, tmp_path: Path) -> None:
    """Mates of expanded particles that the consensus has not are no matter."""

    def table(path: Path, names: list[str], halves: list[int]) -> None:
        block = StarBlock("particles", "loop", {"rlnTomoParticleName": names})
        block.set_integers("rlnRandomSubset", halves)
        for label, value in zip(PART_LABELS, Frame.of(DOMAIN, PIXEL, "mask").offset_angstrom, strict=True):
            block.set_floats(label, [value] * len(names))
        write_star(path, StarDocument([block]))

    table(folder / "consensus" / "run_data.star", ["a", "b", "c"], [1, 2, 1])
    for halves, told in (([1, 1, 2], False), ([1, 1, 1], True)):
        table(folder / "still" / "run_data.star", ["a", "a_m2", "b"], halves)
        made(folder, tmp_path / str(told), "still", fit=False)
        warnings = " ".join(read_manifest(tmp_path / str(told))["warnings"])  # type: ignore[index]
        assert ("1 of 2 particles are in the other half set" in warnings) == told


def test_command_and_report(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["composite", "--i", folder / "consensus", "--parts", f"{folder / 'still'}, {folder / 'moved'}"]
    assert main([str(word) for word in (*words, "--o", tmp_path / "job")]) == 0
    said = capsys.readouterr().out
    assert "in the consensus" in said
    assert "next: tiltwise postprocess --i" in said
    page = (tmp_path / "job" / "report.html").read_text()
    assert "1 of 2 parts" in page or "2 of 2 parts" in page


def test_what_are_no_parts_is_refused(folder: Path, tmp_path: Path) -> None:
    for parts, words in (("", "nothing"), ("a,a", "different folders")):
        with pytest.raises(ConfigError, match=words):
            CompositeOptions(input=folder, parts=parts, output=tmp_path)
    with pytest.raises(FormatError, match=r"no run_focus_mask\.mrc"):
        made(folder, tmp_path / "a", "consensus")
    bad = folder / "bad"
    frame = write_part(bad, turn=np.zeros(3), shift=np.zeros(3), seed=4)
    write(bad, -frame.moved(particle()), 4)
    with pytest.raises(DataError, match="not the density that the consensus has there"):
        made(folder, tmp_path / "b", "bad")
    write_star(bad / "run_data.star", StarDocument([StarBlock("particles", "loop", {"rlnImageName": ["a"]})]))
    with pytest.raises(DataError, match="not parts of particles"):
        made(folder, tmp_path / "c", "bad")
    for number in (1, 2):
        path = bad / f"run_half{number}_class001_unfil.mrc"
        write_map(path, read_map(path)[0], 1.3 * PIXEL)
    with pytest.raises(ShapeError, match="differ in pixel size"):
        made(folder, tmp_path / "d", "bad")
