"""The CUDA sources in the emulator: any schedule gives the same bytes, and the host part keeps its house in order.

What the kernels compute is tested with all other backends; here it is how they do it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import numpy as np
import pytest

from helpers.kernel_problems import CorrelationProblem
from tiltwise.errors import BackendUnavailable
from tiltwise.kernels.reference import ReferenceBackend
from tiltwise.kernels.select import available_backends, load_backend

SEEDS = (0, 1, 2)
RUNTIME_VERSION = 13000
REFERENCE = ReferenceBackend()

pytestmark = pytest.mark.skipif(
    "cuda-emu" not in available_backends(include_test_only=True), reason="the emulator plugin is not built"
)


@pytest.fixture
def emulator() -> Iterator[ctypes.CDLL]:
    """The controls of the emulator, put back afterwards."""
    from tiltwise.kernels.native import plugin_path

    library = ctypes.CDLL(str(plugin_path("cuda-emu")))
    library.tw_emu_set_seed.argtypes = [ctypes.c_uint64]
    library.tw_emu_set_memory_limit.argtypes = [ctypes.c_int64]
    library.tw_emu_allocated_bytes.restype = ctypes.c_size_t
    yield library
    library.tw_emu_set_seed(0)
    library.tw_emu_set_memory_limit(-1)
    library.tw_emu_set_machine(1, RUNTIME_VERSION)


def _complex(rng, *shape):
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


def _real(rng, *shape):
    return np.abs(rng.normal(size=shape)).astype(np.float32)


def _rotations(rng, n):
    return np.linalg.qr(rng.normal(size=(n, 3, 3)))[0].astype(np.float32)


def _frequencies(rng, size, k):
    return np.column_stack([rng.integers(-size // 2, size // 2, (k, 2)), np.zeros(k)]).astype(np.float32)


def _radius(size):
    # between two integers squared, where rounding cannot decide whether a rotated integer frequency is inside
    return size // 2 - 0.5


def _project(backend, size=14):
    rng = np.random.default_rng(11)
    volume = _complex(rng, size, size, size // 2 + 1)
    return [backend.project(volume, _rotations(rng, 3), _frequencies(rng, size, 150), _radius(size))]


def _insert(backend, size=13):
    # 600 samples: two launches of the emulated backend, which takes 500 in one
    rng = np.random.default_rng(12)
    n, k = 4, 150
    shape = (size, size, size // 2 + 1)
    data, weight = _complex(rng, *shape).astype(np.complex128), _real(rng, *shape).astype(np.float64)
    slices, weights = _complex(rng, n, k), _real(rng, n, k)
    backend.insert(slices, weights, _rotations(rng, n), _frequencies(rng, size, k), _radius(size), data, weight)
    return [data, weight]


def _score(backend):
    # more rotations and shifts than a tile holds, and a sum that is cut into parts
    rng = np.random.default_rng(13)
    r, t, k = 67, 35, 530
    return backend.score(_complex(rng, r, k), _complex(rng, k), _real(rng, k), _complex(rng, t, k))


def _posterior(backend, fraction=0.97):
    rng = np.random.default_rng(14)
    log_likelihood = rng.normal(0, 3, (40, 30)).astype(np.float32)
    log_likelihood[-1, -1] = 20.0  # the best pose comes late, where a stride of the grid ends
    weights, summary = backend.posterior(
        log_likelihood,
        rng.normal(size=40).astype(np.float32),
        rng.normal(size=30).astype(np.float32),
        fraction,
    )
    found = [summary.log_evidence, summary.best, summary.max_probability, summary.n_significant, summary.entropy]
    return [weights, np.array(found)]


def _backproject(backend, t=37):
    # three tiles of rotations, and a grid of two rows
    rng = np.random.default_rng(15)
    r, k = 35, 140
    return backend.backproject(_real(rng, r, t), _complex(rng, k), _real(rng, k), _complex(rng, t, k))


def _backproject_without_shifts(backend):
    return _backproject(backend, 0)


def _shell_sums(backend):
    rng = np.random.default_rng(16)
    n, k = 4, 700
    shells = rng.integers(-1, 9, k).astype(np.int32)
    return [backend.shell_sums(_complex(rng, n, k), _complex(rng, n, k), _real(rng, k), shells, 8)]


def _curvature(backend, size=14, axes=2):
    rng = np.random.default_rng(17)
    n, k = 5, 300
    volume = _complex(rng, size, size, size // 2 + 1)
    images, powers, slopes = _complex(rng, n, k), _real(rng, n, k), _real(rng, n, axes)
    rows = np.array([3, 1, 1, 0, 4], np.int32)
    frequencies = _frequencies(rng, size, k)
    return [backend.curvature(volume, _rotations(rng, n), frequencies, _radius(size), images, powers, rows, slopes)]


def _curvature_of_arrays(backend):
    return _curvature(backend, axes=3)


def _condense(backend, size=14):
    rng = np.random.default_rng(20)
    starts = np.array([0, 2, 2, 5], np.int32)
    n, k, groups = 5, 300, 3
    volume, frequencies = _complex(rng, size, size, size // 2 + 1), _frequencies(rng, size, k)
    depths, turns, slopes = _real(rng, n), _real(rng, groups, k), _real(rng, k)
    out = np.zeros((groups, 8, k))
    arrays = _rotations(rng, n), frequencies, _radius(size), _complex(rng, n, k), depths, starts, turns, slopes
    backend.condense(volume, *arrays, out)
    return [out]


def _phase_cost(backend):
    rng = np.random.default_rng(21)
    values, rows = rng.normal(size=(3, 3, 200)), np.array([2, 0, 1, 1], np.int32)
    return [backend.phase_cost(values, values[:, :2].copy(), values[0], rng.normal(size=(4, 3)), rows)]


def _cc_table(backend):
    return list(backend.cc_table(*CorrelationProblem.create(4, 11, 6).arguments))


def _cc_cost(backend):
    rng = np.random.default_rng(22)
    tables, rows = rng.normal(size=(4, 9, 9)).astype(np.float32), rng.integers(0, 4, 900).astype(np.int32)
    return [backend.cc_cost(tables, rows, rng.uniform(-5, 5, (900, 2)))]


KERNELS = [
    _project,
    _insert,
    _score,
    _posterior,
    _backproject,
    _backproject_without_shifts,
    _shell_sums,
    _curvature,
    _curvature_of_arrays,
    _condense,
    _phase_cost,
    _cc_table,
    _cc_cost,
]


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_schedule_gives_the_same_bytes(emulator, kernel):
    results = []
    for seed in SEEDS:
        emulator.tw_emu_set_seed(seed)
        results.append([np.ascontiguousarray(a).tobytes() for a in kernel(load_backend("cuda-emu"))])
    assert results[0] == results[1] == results[2]
    assert emulator.tw_emu_allocated_bytes() == 0, "device memory was not given back"
    # ... and they are right: float32 arithmetic on sums of order one, 1e-6 is 16 roundings
    for found, expected in zip(kernel(load_backend("cuda-emu")), kernel(REFERENCE), strict=True):
        assert np.linalg.norm(found - expected) <= 1e-6 * np.linalg.norm(expected)


def test_accesses_are_watched(emulator):
    # without the hooks, races would be left to three schedules
    assert emulator.tw_emu_finds_races() == 1


@pytest.mark.parametrize("kernel", KERNELS)
def test_out_of_memory_is_an_error_and_leaks_nothing(emulator, kernel):
    # room for more and more buffers: every cudaMalloc of the kernel is the one that fails
    failures = 0
    for bytes_granted in range(0, 200000, 1500):
        emulator.tw_emu_set_memory_limit(bytes_granted)
        try:
            kernel(load_backend("cuda-emu"))
        except MemoryError:
            failures += 1
            assert emulator.tw_emu_allocated_bytes() == 0
        else:
            break
    assert failures > 0
    emulator.tw_emu_set_memory_limit(-1)
    kernel(load_backend("cuda-emu"))


@pytest.mark.parametrize(
    "devices, driver, reason",
    [
        (0, RUNTIME_VERSION, "no CUDA device was found"),
        (1, 0, "no NVIDIA driver was found"),
        (1, 12040, "the NVIDIA driver supports CUDA 12.4, this plugin needs 13.0"),
        (1, RUNTIME_VERSION, ""),
    ],
)
def test_a_machine_that_cannot_run_it_is_named(emulator, devices, driver, reason):
    from tiltwise.kernels.native import open_plugin

    emulator.tw_emu_set_machine(devices, driver)
    try:
        found = open_plugin("cuda-emu").unavailable_reason()
    except BackendUnavailable as error:
        found = error.what
    assert found == reason


def test_insertion_keeps_weak_shells_beside_strong_ones():
    # Sums are integers; their unit follows the spectrum, or a shell 1e12 below the strongest would vanish.
    rng = np.random.default_rng(17)
    size, n, k = 24, 3, 300
    frequencies = _frequencies(rng, size, k)
    spectrum = 10.0 ** (-np.linalg.norm(frequencies, axis=1))
    slices = (_complex(rng, n, k) * spectrum).astype(np.complex64)
    args = slices, _real(rng, n, k), _rotations(rng, n), frequencies, _radius(size)
    found, expected = (np.zeros((size, size, size // 2 + 1), np.complex128) for _ in range(2))
    load_backend("cuda-emu").insert(*args, found, np.zeros(found.shape))
    REFERENCE.insert(*args, expected, np.zeros(found.shape))
    signed = np.fft.fftfreq(size, 1 / size)
    radius = np.sqrt(signed[:, None, None] ** 2 + signed[:, None] ** 2 + np.arange(size // 2 + 1) ** 2)
    for shell in range(size // 2):
        here = np.round(radius) == shell
        # Corner weights are float32 differences of coordinates up to 12: 12 eps / weight.  Within a shell the
        # spectrum falls by another 1e3, hence the slack.
        assert np.linalg.norm(found[here] - expected[here]) <= 1e-5 * np.linalg.norm(expected[here])


def test_insertion_of_one_sample_that_outshines_all():
    # A unit chosen without it would overflow, in its own shell and in those beside it.
    rng = np.random.default_rng(19)
    size, n, k, strength = 14, 4, 150, 1e15
    slices, weights, frequencies = _complex(rng, n, k), _real(rng, n, k), _frequencies(rng, size, k)
    slices[-1, -1], weights[-1, -1], frequencies[-1] = strength, strength, (3, 2, 0)
    args = slices, weights, _rotations(rng, n), frequencies, _radius(size)
    shape = (size, size, size // 2 + 1)
    found, expected = ((np.zeros(shape, np.complex128), np.zeros(shape)) for _ in range(2))
    load_backend("cuda-emu").insert(*args, *found)
    REFERENCE.insert(*args, *expected)
    for f, e in zip(found, expected, strict=True):
        assert np.count_nonzero(np.abs(e) > 1e-3 * strength) >= 4
        assert np.abs(f - e).max() <= 1e-6 * np.abs(e).max()


def test_insertion_of_infinities_and_nan():
    rng = np.random.default_rng(18)
    size, n, k = 12, 2, 80
    slices, weights = _complex(rng, n, k), _real(rng, n, k)
    frequencies = _frequencies(rng, size, k)
    frequencies[[3, 5, 9], :2] = [[1, 2], [3, -1], [-2, 2]]
    # the rotations are the same, so component 3 of both meets in the same voxels
    slices[:, 3], slices[1, 5], weights[1, 9] = np.nan, np.inf, np.nan
    args = slices, weights, np.repeat(_rotations(rng, 1), n, axis=0), frequencies, _radius(size)
    shape = (size, size, size // 2 + 1)
    found, expected = ((np.zeros(shape, np.complex128), np.zeros(shape)) for _ in range(2))
    load_backend("cuda-emu").insert(*args, *found)
    with np.errstate(invalid="ignore"):
        REFERENCE.insert(*args, *expected)
    for f, e in zip(found, expected, strict=True):
        finite = np.isfinite(e)
        assert np.array_equal(np.isfinite(f), finite)
        assert not finite.all()
        assert np.linalg.norm(f[finite] - e[finite]) <= 1e-6 * np.linalg.norm(e[finite])
