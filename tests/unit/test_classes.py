"""Parts of a classification against closed forms."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tiltwise.classes.aligned import log_empty
from tiltwise.classes.classify import long_settled
from tiltwise.classes.differences import signal_share
from tiltwise.classes.final import class_maps
from tiltwise.classes.fixed import FixedIterations
from tiltwise.classes.given import reference_paths
from tiltwise.classes.groups import PointGroups
from tiltwise.classes.mixture import cluster, posterior, proportions
from tiltwise.classes.options import ClassifyOptions
from tiltwise.classes.residuals import FixedScores, Portion, explained, portions_of
from tiltwise.classes.state import Move, State
from tiltwise.classes.whole import class_references
from tiltwise.em.estimates import PoseEstimate
from tiltwise.em.grid import PoseGrid
from tiltwise.em.settings import Settings
from tiltwise.errors import ConfigError, DataError
from tiltwise.extract.source import Poses
from tiltwise.geometry.rotations import rotation_z
from tiltwise.geometry.symmetry import symmetry_matrices
from tiltwise.kernels.select import load_backend
from tiltwise.maps.volumes import Accumulator, PackedSums, gridding_correction, reference_volume
from tiltwise.report.classes import classes_section
from tiltwise.spectral.disc import FourierDisc
from tiltwise.spectral.masks import soft_sphere


def test_posteriors_are_those_of_bayes() -> None:
    log = np.array([[0.0, np.log(3.0)], [1e6, 1e6 - 2.0], [-np.inf, 0.0]])
    weight, evidence = posterior(log, np.array([0.75, 0.25]))
    np.testing.assert_allclose(weight[0], [0.5, 0.5])
    np.testing.assert_allclose(weight[1, 0], 0.75 / (0.75 + 0.25 * np.exp(-2.0)))
    np.testing.assert_allclose(weight[2], [0.0, 1.0])
    np.testing.assert_allclose(evidence[0], np.log(1.5))


def test_a_class_without_share_stays_empty() -> None:
    share = proportions(np.zeros((10, 3)), np.array([0.5, 0.5, 0.0]))
    assert share[2] == 0.0
    weight, _ = posterior(np.zeros((10, 3)), share)
    assert not weight[:, 2].any()


def test_proportions_are_found_in_sure_posteriors() -> None:
    """Seven of ten are of the first class; one particle is added to both together."""
    log = np.where(np.arange(10)[:, None] < 7, [[50.0, 0.0]], [[0.0, 50.0]])
    np.testing.assert_allclose(proportions(log, np.array([0.5, 0.5])), [7.5 / 11, 3.5 / 11])


def test_clusters_are_found() -> None:
    rng = np.random.default_rng(1)
    label = np.repeat([0, 1, 2], 60)
    centres = np.array([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]])
    weight = cluster(centres[label] + rng.standard_normal((180, 2)), 3, rng)
    found = weight.argmax(axis=1)
    assert all(np.bincount(found[label == k]).max() >= 58 for k in range(3))
    assert len(np.unique([np.bincount(found[label == k]).argmax() for k in range(3)])) == 3


@pytest.mark.parametrize("ratio", [0.0, 0.5, 3.0])
def test_share_of_signal_is_that_of_the_mean_of_two_halves(ratio: float) -> None:
    """Power of signal over that of the noise of a half: the mean of both has half the noise."""
    rng = np.random.default_rng(2)
    signal, *noise = rng.standard_normal((3, 48, 48, 48))
    halves = [(np.sqrt(ratio) * signal + part).astype(np.float32) for part in noise]
    share = signal_share(halves[0], halves[1], soft_sphere(48, 18.0, 4.0).astype(np.float32))
    expected = ratio / (ratio + 0.5)
    assert np.abs(share[6:] - expected).max() <= 0.12
    assert abs(share[10:].mean() - expected) <= 0.03


def test_residuals_explain_what_whole_maps_do() -> None:
    """L(V + D) - L(V) from the residual of V; two particles of two and three images."""
    rng = np.random.default_rng(3)
    shape, starts = (5, 40), np.array([0, 2])

    def noise() -> NDArray[np.complex64]:
        return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)

    average, difference, data = noise(), noise(), noise()
    power = rng.uniform(0.1, 2.0, shape).astype(np.float32)

    def log_likelihood(model: NDArray[np.complex64]) -> NDArray[np.float64]:
        terms = 2.0 * (model.conj() * data).real - power * np.abs(model) ** 2
        return np.add.reduceat(terms.sum(axis=1, dtype=np.float64), starts)

    cross, quadratic = explained(difference, data - power * average, power, starts)
    np.testing.assert_allclose(
        2.0 * cross - quadratic, log_likelihood(average + difference) - log_likelihood(average), rtol=1e-4, atol=1e-3
    )


def test_residuals_of_a_map_are_relative_to_what_it_is_beyond_the_average() -> None:
    """Images that hold just that leave nothing for the second map, and all of it for the first."""
    size, backend, rng = 16, load_backend(), np.random.default_rng(4)
    beyond = reference_volume(rng.standard_normal((size,) * 3).astype(np.float32))
    disc = FourierDisc.create(size)
    matrices = np.ascontiguousarray(2.0 * Rotation.random(3, rng=rng).as_matrix(), np.float32)
    slices = backend.project(beyond, matrices, disc.frequencies3d(len(disc)), size)
    power = rng.uniform(0.5, 2.0, slices.shape).astype(np.float32)
    found = SimpleNamespace(matrices=matrices, power=power, mapped=power * slices, owner=np.array([0, 0, 1]))
    images = SimpleNamespace(backend=backend, images=SimpleNamespace(disc=disc), count=len(disc), threads=1)
    residuals = type("Residuals", (SimpleNamespace,), {"__call__": lambda *_: found})(**vars(images))
    scores = FixedScores(cast(Any, residuals), [Portion(0, 0, np.array([0, 1]))], lambda: None)
    kept: dict[int, list[Accumulator]] = {}

    def done(fold: int, sums: list[Accumulator]) -> None:
        kept[fold] = [part.copy() for part in sums]

    scores.sums(np.array([[1.0, 1.0], [0.0, 0.5]]), size, done, lambda fold: {1: beyond})
    first, second = (np.abs(part.data).max() for part in kept[0])
    assert second <= 1e-6 * first
    # the second has half a particle more
    assert kept[0][1].weight.sum() > 1.1 * kept[0][0].weight.sum()


def test_portions_hold_all_particles_of_one_fold_and_series() -> None:
    folds, series = np.array([0, 1, 0, 1] * 40), np.array([0, 0, 1, 1] * 40)
    portions = portions_of(folds, series)
    assert sorted(np.concatenate([p.members for p in portions]).tolist()) == list(range(160))
    assert all((folds[p.members] == p.fold).all() and (series[p.members] == p.series).all() for p in portions)
    assert [p.fold for p in portions] == sorted(p.fold for p in portions)


def test_references_are_named_with_commas() -> None:
    assert [path.name for path in reference_paths("a.mrc, b.mrc", 2)] == ["a.mrc", "b.mrc"]
    with pytest.raises(ConfigError, match="differ in number"):
        reference_paths("a.mrc,b.mrc", 3)


def state(posterior: list[list[float]]) -> State:
    weights = np.array(posterior)
    return State(1, weights, weights.mean(axis=0), np.zeros(len(weights)))


def test_dead_classes_keep_no_particle() -> None:
    """Not even the one that was likelier there than anywhere else."""
    found = state([[0.9, 0.1, 0.0], [0.3, 0.29, 0.41]] + [[0.5, 0.5, 0.0]] * 6)
    (text,) = found.bury(junk=False)
    assert "class 3 has lost its particles (0.41 expected)" in text
    assert "no more than 2 classes" in text
    assert found.dead == [3]
    assert found.share[2] == 0.0
    np.testing.assert_allclose(found.posterior[1], [0.3 / 0.59, 0.29 / 0.59, 0.0])
    np.testing.assert_allclose(found.posterior.sum(axis=1), 1.0)
    assert found.bury(junk=False) == []


def test_no_junk_is_good_news_and_nothing_but_junk_is_refused() -> None:
    found = state([[1.0 - 1e-9, 1e-9]] * 8)
    (text,) = found.bury(junk=True)
    assert "no position is junk" in text
    assert (found.posterior == [1.0, 0.0]).all()
    with pytest.raises(DataError, match="no position holds a particle"):
        state([[0.01, 0.99]] * 8).bury(junk=True)


def test_a_guess_needs_particles() -> None:
    """An average that explains nothing leaves nothing to divide."""
    nothing = cast(Any, None)
    work = FixedIterations(
        scores=nothing,
        average=nothing,
        over_nothing=np.full(40, -60.0),
        backend=nothing,
        groups=nothing,
        beyond={},
        mask=nothing,
        pixel_size=5.0,
        classes=2,
        junk=True,
        tau2_fudge=1.0,
    )
    with pytest.raises(DataError, match="no position holds a particle"):
        work.guess(1, 0)


def test_nothing_has_the_poses_that_are_searched() -> None:
    """Under a point group orientations everywhere are those of one asymmetric unit, for maps and for nothing."""
    grid = PoseGrid(3, 0, np.eye(3), None, 6.0, 3.0, np.zeros(3))
    group = symmetry_matrices("D3")
    free, bound = (Settings(grid, 5.0, 5.0, 5.0, 6.0, 10.0, symmetry=symmetry) for symmetry in (None, group))
    cells = [len(grid.asymmetric_rotations(one.symmetry)[0]) for one in (free, bound)]
    ratio = np.exp(log_empty(bound, np.zeros(3)) - log_empty(free, np.zeros(3)))
    assert ratio == pytest.approx(cells[1] / cells[0], rel=0.1)


def test_junk_does_not_thin_the_map_outside_the_mask() -> None:
    """Half of the images are of nothing: outside the mask the map of the class is still whole."""
    size = 16
    density = np.asarray(soft_sphere(size, 5.0, 3.0), np.float32)
    sums = {}
    for half in (1, 2):
        for k, factor in ((0, 1.0), (1, 0.0)):
            one = Accumulator.empty(size, 2)
            one.data[...] = factor * reference_volume(density)
            one.weight[...] = 1.0
            sums[half, k] = PackedSums.of(one)
    mask = np.zeros((size,) * 3, np.float32)
    mask[:, :, : size // 2] = 1.0
    options = SimpleNamespace(mask="mask.mrc", junk=True)
    data = cast(Any, SimpleNamespace(options=options, mask=mask, threads=1, box=size, pixel_size=5.0))
    found, _ = class_maps(data, sums)
    outside = mask == 0
    factor = np.vdot(found.map[outside], density[outside]) / np.vdot(density[outside], density[outside])
    assert factor == pytest.approx(np.vdot(found.map, density) / np.vdot(density, density), rel=0.05)


def test_aligned_particles_rest_when_nothing_has_happened_for_long() -> None:
    found = state([[1.0, 0.0]] * 8)
    found.shell = 9
    quiet = {"change": 0.0, "still": 1.0}
    found.history = [quiet]
    assert not long_settled(found, 9)
    found.history = [{"change": 0.1, "still": 1.0}, quiet, quiet]
    assert long_settled(found, 9)
    assert not long_settled(found, 7)  # finer than before
    assert not long_settled(replace(found, history=[*found.history, {"change": 0.1, "still": 1.0}]), 9)
    assert not long_settled(replace(found, history=[*found.history, {"change": 0.0, "still": 0.0}]), 9)


def test_poses_stand_still_when_they_move_less_than_they_are_uncertain() -> None:
    """A turn about z and a shift along it, of two particles out of three: widths are of one axis of three."""
    count = np.zeros((3, 3))
    before = Poses(count, count, np.stack([np.eye(3)] * 3))
    turns, shifts = np.array([2.0, 2.0, 90.0]), np.array([[0.0, 0.0, 1.0]] * 2 + [[0.0, 0.0, 50.0]])
    after = Poses(count, shifts, np.stack([rotation_z(turn) for turn in turns]))

    def estimates(deg: float, angstrom: float) -> list[PoseEstimate]:
        return [cast(PoseEstimate, SimpleNamespace(std_deg=deg, std_angstrom=angstrom))] * 3

    edge = 1.0 / (0.3 * np.sqrt(3.0))
    move = Move.of(before, after, estimates(2.1 * edge, 1.1 * edge))
    np.testing.assert_allclose([move.angle_deg, move.angstrom], [2.0, 1.0], rtol=1e-6)
    assert move.still
    assert not Move.of(before, after, estimates(1.9 * edge, 1.1 * edge)).still
    assert not Move.of(before, after, estimates(2.1 * edge, 0.9 * edge)).still
    assert not Move.of(before, after, estimates(float("nan"), 1.1 * edge)).still


@pytest.mark.parametrize(("second", "said"), [(0.8, "are nearly calibrated"), (0.1, "nothing was found that tells")])
def test_posteriors_of_a_class_that_has_all_particles_are_not_called_calibrated(second: float, said: str) -> None:
    posterior_of = np.array([[0.9, 0.1], [1.0 - second, second]])
    state = SimpleNamespace(
        posterior=posterior_of,
        classes=1 + posterior_of.argmax(axis=1),
        share=posterior_of.mean(axis=0),
        dead=[],
        places=["here", "there"],
    )
    one = SimpleNamespace(resolution_angstrom=10.0)
    options = ClassifyOptions(input=Path("set.star"), output=Path("job"), box=32)
    section = classes_section(options, cast(Any, SimpleNamespace(state=state, maps=[one, one])), ["a", "b"])
    assert said in section.caption
    assert "First guess: here; there." in section.caption


@pytest.mark.parametrize(
    ("names", "common", "kind_of"),
    [
        (["C3", "C3"], "C3", (0, 0)),
        (["C6", "C1", "C6"], "C1", (1, 0, 1)),
        (["C6", "D3"], "C3", (1, 2)),
        (["C4", "C6"], "C2", (1, 2)),
        (["O", "D2", "C2"], "C2", (1, 2, 0)),
        (["T", "C1"], "C1", (1, 0)),
    ],
)
def test_the_average_has_the_symmetry_that_all_classes_share(
    names: list[str], common: str, kind_of: tuple[int, ...]
) -> None:
    groups = PointGroups.of(names)
    expected = symmetry_matrices(common)
    assert len(groups.common) == len(expected)
    assert all(np.abs(expected - operator).max(axis=(1, 2)).min() < 1e-9 for operator in groups.common)
    assert groups.kind_of == kind_of
    for k, name in enumerate(names):
        np.testing.assert_allclose(groups[k], symmetry_matrices(name), atol=1e-9)


def test_every_way_to_give_groups_to_clusters_is_tried_once() -> None:
    groups = PointGroups.of(["C3", "C1", "C1", "C1"])
    assert groups.arrangements == 4
    orders = list(groups.orders())
    assert {order[0] for order in orders} == {0, 1, 2, 3}
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders)
    assert PointGroups.of(["C5"] * 9).arrangements == len(list(PointGroups.of(["C5"] * 9).orders())) == 1
    assert next(PointGroups.of(["C5"] * 3).orders()) == [0, 1, 2]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"symmetry": "C6,C1", "classes": 3}, "differ in number"),
        ({"symmetry": "C6,C1", "classes": 1, "junk": True}, "junk has no symmetry"),
        ({"symmetry": "C6,C1", "mask": Path("mask.mrc")}, "differ everywhere"),
        ({"symmetry": "C6,X1"}, "C1, C2, ..."),
    ],
)
def test_point_groups_of_classes_are_refused_in_words(changes: dict[str, Any], said: str) -> None:
    with pytest.raises((ConfigError, ValueError), match=said):
        ClassifyOptions(input=Path("set.star"), output=Path("job"), box=32, **changes)


def test_a_class_of_whole_images_is_a_difference_from_the_average_with_its_symmetry() -> None:
    """Sums of two exact maps, one with a point group: what comes back is symmetric, or is not, as it was."""
    size = 16
    ball = np.asarray(soft_sphere(size, 3.0, 2.0), np.float32)
    one, two = np.roll(ball, 2, axis=2), np.roll(ball, -2, axis=2)
    true = {0: one, 1: one + two}
    groups = PointGroups.of(["C1", "C2"])
    backend = load_backend()
    sums, every = {}, {}
    for fold in range(4):
        parts = []
        for density in true.values():
            part = Accumulator.empty(size, 2)
            # insertion attenuates
            part.data[...] = 1e3 * reference_volume(density * gridding_correction(size, 2 * size) ** 2)
            part.weight[...] = 1e3
            parts.append(part)
        for k, part in enumerate(parts):
            sums[fold, k] = PackedSums.of(part.symmetrised(groups[k], backend))
        for kind, operators in enumerate(groups.kinds):
            every[fold, kind] = PackedSums.of((parts[0] + parts[1]).symmetrised(operators, backend))
    sphere = np.asarray(soft_sphere(size, 6.0, 2.0), np.float32)
    maps, average = class_references(sums, every, groups.kind_of, np.array([1, 1, 2, 2]), sphere, sphere, 7.5, 5.0, 1.0)
    for k, density in true.items():
        error = np.linalg.norm(maps[0][k] - density * sphere) / np.linalg.norm(density)
        assert error <= 0.1
    expected = 0.5 * (true[0] + true[1]) * sphere
    assert np.linalg.norm(average.map - expected) <= 0.1 * np.linalg.norm(expected)
