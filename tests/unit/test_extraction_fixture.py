"""The worked extraction example of the format notes: numbers written by RELION-5 (--b 48 --crop 32 --bin 2)."""

from __future__ import annotations

from pathlib import Path

import mrcfile
import numpy as np
import pytest
from numpy.typing import NDArray

from tiltwise.extract.images import ImageExtractor
from tiltwise.extract.pseudo import pseudo_subtomogram
from tiltwise.extract.source import ParticleSource, Poses
from tiltwise.geometry.projection import projection_matrices_from_angles
from tiltwise.geometry.rotations import euler_to_matrix, matrix_to_euler
from tiltwise.io.optimisation_set import load_optimisation_set

PIXEL, IMAGE, TOMOGRAM = 2.0, (192, 176), (190, 180, 100)
BOX, CROP, BINNING = 48, 32, 2.0
TILTS = """\
-1.5 0 83.0 1.036753 2.464854 20000 19500 30 0 1
0 -20 83.3 0.991311 -3.90947 20500 19900 35 3 0.939693
1.5 20 83.6 2.716068 1.339124 21000 20300 40 6 0.939693
-1.5 -40 83.9 -1.61086 1.743354 21500 20700 45 9 0.766044
0 40 84.2 1.093717 0.882397 22000 21100 50 12 0.766044"""
PARTICLES = """\
30.4 -25.2 11.0 25 60 -35 10 40 70 1.7 -2.3 3.1
-41 22 -17 0 0 0 0 0 0 0 0 0"""
BLOBS = [((0, 0, 0), 1.0), ((6, 0, 0), 0.8), ((0, 9, 0), 0.6), ((0, 0, 12), 0.9)]

# The table has 7 digits.  Single values are sums of larger terms in single precision, so they are good to
# 1e-6 of the largest value of their kind; sums are good to 1e-6 of themselves.
STACK, DATA, WEIGHT, TOTAL = 5e-7, 5e-7, 1e-5, 2e-6


def table(text: str) -> NDArray[np.float64]:
    return np.array([[float(word) for word in line.split()] for line in text.splitlines()])


def star(path: Path, blocks: dict[str, tuple[str, list[str]]]) -> None:
    lines = []
    for name, (labels, rows) in blocks.items():
        lines += [
            f"data_{name}",
            "",
            "loop_",
            *(f"_{label} #{i + 1}" for i, label in enumerate(labels.split())),
            *rows,
            "",
        ]
    path.write_text("\n".join(lines))


def images() -> NDArray[np.float32]:
    angles = table(TILTS)[:, :5].T
    projection = projection_matrices_from_angles(*angles, PIXEL, TOMOGRAM, IMAGE)
    stack = np.full((len(projection), IMAGE[1], IMAGE[0]), 5.0)
    y, x = np.mgrid[: IMAGE[1], : IMAGE[0]]
    for row in table(PARTICLES):
        sub, part = euler_to_matrix(row[3:6]), euler_to_matrix(row[6:9])
        position = row[:3] / PIXEL + np.array(TOMOGRAM) / 2 - sub @ row[9:] / PIXEL
        for offset, amplitude in BLOBS:
            points = projection @ np.append(position + sub @ part @ np.array(offset, float), 1.0)
            for image, (qx, qy, *_) in zip(stack, points, strict=True):
                image += amplitude * np.exp(-((x - qx) ** 2 + (y - qy) ** 2) / (2 * 1.6**2))
    return stack.astype(np.float32)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ParticleSource:
    folder = tmp_path_factory.mktemp("fixture")
    with mrcfile.new(folder / "TS.mrcs") as file:
        file.set_data(images())
        file.voxel_size = PIXEL
    star(
        folder / "TS.star",
        {
            "TS": (
                "rlnMicrographName rlnTomoXTilt rlnTomoYTilt rlnTomoZRot rlnTomoXShiftAngst rlnTomoYShiftAngst "
                "rlnDefocusU rlnDefocusV rlnDefocusAngle rlnMicrographPreExposure rlnCtfScalefactor",
                [f"{i + 1:06d}@TS.mrcs {line}" for i, line in enumerate(TILTS.splitlines())],
            )
        },
    )
    star(
        folder / "tomograms.star",
        {
            "global": (
                "rlnTomoName rlnVoltage rlnSphericalAberration rlnAmplitudeContrast rlnMicrographOriginalPixelSize "
                "rlnTomoHand rlnOpticsGroupName rlnTomoTiltSeriesPixelSize rlnTomoTiltSeriesStarFile "
                "rlnTomoSizeX rlnTomoSizeY rlnTomoSizeZ",
                [f"TS 300 2.7 0.1 {PIXEL} -1 og {PIXEL} TS.star 190 180 100"],
            )
        },
    )
    star(
        folder / "particles.star",
        {
            "optics": (
                "rlnOpticsGroup rlnOpticsGroupName rlnSphericalAberration rlnVoltage rlnTomoTiltSeriesPixelSize "
                "rlnAmplitudeContrast",
                [f"1 og 2.7 300 {PIXEL} 0.1"],
            ),
            "particles": (
                "rlnTomoName rlnTomoParticleName rlnOpticsGroup rlnCenteredCoordinateXAngst "
                "rlnCenteredCoordinateYAngst rlnCenteredCoordinateZAngst rlnTomoSubtomogramRot "
                "rlnTomoSubtomogramTilt rlnTomoSubtomogramPsi rlnAngleRot rlnAngleTilt rlnAnglePsi "
                "rlnOriginXAngst rlnOriginYAngst rlnOriginZAngst",
                [f"TS TS/{i + 1} 1 {line}" for i, line in enumerate(PARTICLES.splitlines())],
            ),
        },
    )
    optset = load_optimisation_set(tomograms=folder / "tomograms.star", particles=folder / "particles.star")
    return ParticleSource(optset, box_px=BOX, crop_px=CROP, binning=BINNING, diameter_angstrom=None)


def extractor(source: ParticleSource) -> ImageExtractor:
    loader = source.loader(0)
    assert isinstance(loader, ImageExtractor)
    return loader


def positions(source: ParticleSource) -> NDArray[np.float64]:
    poses = Poses.of(source.optset)
    return poses.stored_px + poses.displacement_angstrom / PIXEL


def test_positions_and_defocus(source: ParticleSource) -> None:
    loader = extractor(source)
    expected = {
        (0, 0): (108.95597, 103.20004, -9.5179),
        (0, 3): (106.70383, 96.41355, -27.0624),
        (1, 0): (83.32663, 70.19822, 17.5701),
        (1, 3): (83.41315, 80.01648, 39.8137),
    }
    tilts = np.arange(5)
    for (particle, tilt), (qx, qy, defocus) in expected.items():
        position = positions(source)[particle]
        np.testing.assert_allclose(loader.project(position, None)[tilt, :2], (qx, qy), rtol=0, atol=1e-5)
        assert loader.depth_defocus(position, tilts)[tilt] == pytest.approx(defocus, abs=1e-4)
    centred = (positions(source)[0] - np.array(TOMOGRAM) / 2) * PIXEL
    np.testing.assert_allclose(centred, (30.758522, -21.52718, 8.957490), rtol=0, atol=1e-5)
    combined = matrix_to_euler(Poses.of(source.optset).rotation[0])
    np.testing.assert_allclose(combined, (83.011512, 64.434716, 10.221816), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("particle", "values", "total"),
    [
        (0, (-0.1067299, -0.1463546, -0.05022387, 0.02109552), 55.40315),
        (1, (-0.145695, -0.14514, -0.05684333, 0.06543718), 61.65277),
    ],
)
def test_stack_of_images(
    source: ParticleSource, particle: int, values: tuple[float, float, float, float], total: float
) -> None:
    tilts, stack = extractor(source).stack(positions(source)[particle])
    assert stack.shape == (5, CROP, CROP)
    np.testing.assert_array_equal(tilts, np.arange(5))
    found = [stack[i] for i in ((0, 16, 16), (0, 16, 17), (1, 14, 18), (4, 20, 12))]
    np.testing.assert_allclose(found, values, rtol=0, atol=STACK)
    assert np.abs(stack, dtype=np.float64).sum() == pytest.approx(total, rel=TOTAL)


@pytest.mark.parametrize(
    ("particle", "data", "weights", "totals"),
    [
        (
            0,
            (-0.1203457, -0.1184984, -0.01031464),
            ((0.08550504, 7.574351), (0.06493262, 0.1424509), (0.7327974, 0.8759523)),
            (202.6535, 686.78935, 2299.6908),
        ),
        (
            1,
            (-0.1284528, -0.09875549, -0.08366115),
            ((0.09069629, 7.867189), (0.9379857, 1.059372), (0.0, 0.0)),
            (252.1841, 633.0348, 2075.1256),
        ),
    ],
)
def test_pseudo_subtomogram(
    source: ParticleSource,
    particle: int,
    data: tuple[float, float, float],
    weights: tuple[tuple[float, float], ...],
    totals: tuple[float, float, float],
) -> None:
    frame = euler_to_matrix(source.optset.particles.subtomogram_angles_deg[particle])
    result = pseudo_subtomogram(extractor(source), positions(source)[particle], None, frame)
    assert result.multiplicity is not None
    assert result.pixel_size_angstrom == PIXEL * BINNING
    found = [result.data[i] for i in ((16, 16, 16), (16, 16, 19), (13, 18, 16))]
    np.testing.assert_allclose(found, data, rtol=0, atol=DATA)
    voxels = ((0, 0, 0), (0, 0, 4), (28, 2, 1))
    found = [(result.ctf2[i], result.multiplicity[i]) for i in voxels]
    np.testing.assert_allclose(found, weights, rtol=WEIGHT, atol=0)
    sums = [np.abs(a, dtype=np.float64).sum() for a in (result.data, result.ctf2, result.multiplicity)]
    np.testing.assert_allclose(sums, totals, rtol=TOTAL)


def test_tilts_after_the_dose_limit_are_left_out(source: ParticleSource) -> None:
    whole = extractor(source)
    limited = ImageExtractor(
        whole.series,
        source.optset.optics[0],
        whole.reader,
        box_px=BOX,
        crop_px=CROP,
        binning=BINNING,
        disc=whole.disc,
        max_dose=7.0,
    )
    tilts, stack = limited.stack(positions(source)[0])
    np.testing.assert_array_equal(tilts, [0, 1, 2])
    np.testing.assert_array_equal(stack, whole.stack(positions(source)[0])[1][:3])
