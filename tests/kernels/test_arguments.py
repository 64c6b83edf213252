"""Foolish arguments are refused: by name, with what was expected and found."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.kernel_problems import CorrelationProblem, ScoreProblem, SliceProblem
from tiltwise.errors import ShapeError
from tiltwise.kernels.api import Backend
from tiltwise.kernels.select import load_backend

P = SliceProblem.create(8, 4.0, n=2, k=10)
Q = ScoreProblem.create(3, 2, 10)
SHELLS = np.zeros(10, np.int32)
ROWS = np.zeros(2, np.int32)
SLOPES = np.zeros((2, 3), np.float32)
STARTS = np.array([0, 1, 2], np.int32)
TURNS = np.zeros((2, 10), np.float32)
DEPTHS = np.zeros(2, np.float32)
CORRELATIONS = vars(CorrelationProblem.create(2, 3, 2))
TABLES = {"tables": np.zeros((2, 5, 5), np.float32), "rows": ROWS, "shifts": np.zeros((2, 2))}
COSTS = {
    "matrices": np.zeros((2, 3, 4)),
    "vectors": np.zeros((2, 2, 4)),
    "basis": np.zeros((3, 4)),
    "parameters": np.zeros((2, 3)),
}


def call(backend: Backend, kernel: str, **changes: object) -> object:
    """The kernel with good arguments, but for the changed ones."""
    data, weight = P.accumulators()
    slices = {"matrices": P.matrices, "frequencies": P.frequencies, "radius": P.radius}
    scores = {"image": Q.image, "power": Q.power, "phases": Q.phases}
    good: dict[str, dict[str, object]] = {
        "project": {"volume": P.volume, **slices},
        "insert": {"slices": P.slices, "weights": P.weights, **slices, "data": data, "weight": weight},
        "score": {"slices": Q.slices, **scores},
        "posterior": {
            "log_likelihood": Q.weights,
            "log_prior_rotation": Q.weights[:, 0].copy(),
            "log_prior_shift": Q.weights[0].copy(),
            "fraction": 0.9,
        },
        "backproject": {"weights": Q.weights, **scores},
        "curvature": {
            "volume": P.volume,
            **slices,
            "images": P.slices,
            "powers": P.weights,
            "rows": ROWS,
            "slopes": SLOPES,
        },
        "condense": {
            "volume": P.volume,
            **slices,
            "images": P.slices,
            "depths": DEPTHS,
            "starts": STARTS,
            "turns": TURNS,
            "slopes": TURNS[0].copy(),
            "out": np.zeros((2, 8, 10)),
        },
        "phase_cost": {**COSTS, "rows": ROWS},
        "cc_table": CORRELATIONS,
        "cc_cost": TABLES,
        "shell_sums": {"a": Q.slices, "b": Q.slices, "weights": Q.power, "shells": SHELLS, "n_shells": 1},
    }
    return getattr(backend, kernel)(**{**good[kernel], **changes})


ARRAYS = [
    ("project", "volume", P.volume),
    ("project", "matrices", P.matrices),
    ("project", "frequencies", P.frequencies),
    ("insert", "slices", P.slices),
    ("insert", "weights", P.weights),
    ("insert", "matrices", P.matrices),
    ("insert", "frequencies", P.frequencies),
    ("insert", "data", P.accumulators()[0]),
    ("insert", "weight", P.accumulators()[1]),
    ("score", "slices", Q.slices),
    ("score", "image", Q.image),
    ("score", "power", Q.power),
    ("score", "phases", Q.phases),
    ("posterior", "log_likelihood", Q.weights),
    ("posterior", "log_prior_rotation", Q.weights[:, 0]),
    ("posterior", "log_prior_shift", Q.weights[0]),
    ("backproject", "weights", Q.weights),
    ("backproject", "image", Q.image),
    ("backproject", "power", Q.power),
    ("backproject", "phases", Q.phases),
    ("curvature", "volume", P.volume),
    ("curvature", "matrices", P.matrices),
    ("curvature", "frequencies", P.frequencies),
    ("curvature", "images", P.slices),
    ("curvature", "powers", P.weights),
    ("curvature", "rows", ROWS),
    ("curvature", "slopes", SLOPES),
    ("condense", "volume", P.volume),
    ("condense", "matrices", P.matrices),
    ("condense", "frequencies", P.frequencies),
    ("condense", "images", P.slices),
    ("condense", "depths", DEPTHS),
    ("condense", "starts", STARTS),
    ("condense", "turns", TURNS),
    ("condense", "slopes", TURNS[0].copy()),
    ("condense", "out", np.zeros((2, 8, 10))),
    *(("phase_cost", name, array) for name, array in COSTS.items()),
    ("phase_cost", "rows", ROWS),
    *(("cc_table", name, array) for name, array in CORRELATIONS.items()),
    *(("cc_cost", name, array) for name, array in TABLES.items()),
    ("shell_sums", "a", Q.slices),
    ("shell_sums", "b", Q.slices),
    ("shell_sums", "weights", Q.power),
    ("shell_sums", "shells", SHELLS),
]


def other_dtype(array: np.ndarray) -> np.ndarray:
    wider = {"complex64": "complex128", "float32": "float64", "int32": "int64"}
    narrower = {"complex128": "complex64", "float64": "float32"}
    return array.astype({**wider, **narrower}[array.dtype.name])


def strided(array: np.ndarray) -> np.ndarray:
    """The same values and shape, every second element of a larger array."""
    return np.repeat(array, 2, axis=-1)[..., ::2]


@pytest.fixture(params=["host", "simd-v1"])
def bound(request: pytest.FixtureRequest) -> Backend:
    """The binding is one for all compiled backends; two of them stand for all."""
    return load_backend(request.param)


@pytest.mark.parametrize(("kernel", "name", "array"), ARRAYS, ids=lambda value: value if isinstance(value, str) else "")
class TestEveryArray:
    def test_wrong_dtype(self, bound: Backend, kernel: str, name: str, array: np.ndarray) -> None:
        wrong = other_dtype(array)
        with pytest.raises(TypeError) as caught:
            call(bound, kernel, **{name: wrong})
        message = str(caught.value)
        assert f"argument '{name}'" in message
        assert f"kernel {kernel}" in message
        assert array.dtype.name in message
        assert wrong.dtype.name in message

    def test_not_an_array(self, bound: Backend, kernel: str, name: str, array: np.ndarray) -> None:
        with pytest.raises(TypeError, match=f"argument '{name}' is not an array"):
            call(bound, kernel, **{name: array.tolist()})

    def test_wrong_rank(self, bound: Backend, kernel: str, name: str, array: np.ndarray) -> None:
        with pytest.raises(ShapeError, match=f"argument '{name}' has the wrong shape"):
            call(bound, kernel, **{name: array[None]})

    def test_wrong_extent(self, bound: Backend, kernel: str, name: str, array: np.ndarray) -> None:
        # One argument of a kernel sets the extents: then another one is named.
        longer = np.concatenate([array, array[..., :1]], axis=-1)
        with pytest.raises(ShapeError, match=r"has the wrong shape[\s\S]*expected: .* = \([\s\S]*found: \("):
            call(bound, kernel, **{name: longer})

    def test_strides(self, bound: Backend, kernel: str, name: str, array: np.ndarray) -> None:
        with pytest.raises(ShapeError, match=rf"argument '{name}'[\s\S]*C-contiguous[\s\S]*ascontiguousarray"):
            call(bound, kernel, **{name: strided(array)})


@pytest.mark.parametrize("kernel", ["project", "insert"])
@pytest.mark.parametrize("radius", [4.01, -1.0, float("nan"), float("inf")])
def test_radius_beyond_the_volume(compiled: Backend, kernel: str, radius: float) -> None:
    with pytest.raises(ShapeError, match="radius"):
        call(compiled, kernel, radius=radius)


@pytest.mark.parametrize("name", ["data", "weight"])
def test_read_only_accumulators(compiled: Backend, name: str) -> None:
    arrays = dict(zip(("data", "weight"), P.accumulators(), strict=True))
    arrays[name].flags.writeable = False
    with pytest.raises(ShapeError, match=f"argument '{name}' cannot be written to"):
        call(compiled, "insert", **{name: arrays[name]})


def test_out_of_the_wrong_kind(compiled: Backend) -> None:
    with pytest.raises(ShapeError, match="argument 'out'"):
        call(compiled, "project", out=np.empty((2, 11), np.complex64))
    with pytest.raises(TypeError, match="argument 'out'"):
        call(compiled, "project", out=np.empty((2, 10), np.complex128))


def test_negative_number_of_shells(compiled: Backend) -> None:
    with pytest.raises(ShapeError, match="n_shells"):
        call(compiled, "shell_sums", n_shells=-1)


def test_components_without_a_place(bound: Backend) -> None:
    frequencies = CORRELATIONS["frequencies"]
    for wrong, text in (([4, 0], "does not cover"), ([0, -4], "does not cover"), ([-1, 0], "does not cover")):
        changed = np.concatenate([frequencies[:-1], np.array([wrong], np.int32)])
        with pytest.raises(ShapeError, match=text):
            call(bound, "cc_table", frequencies=changed)
    with pytest.raises(ShapeError, match="lists a component twice"):
        call(bound, "cc_table", frequencies=np.repeat(frequencies[:1], len(frequencies), axis=0))


@pytest.mark.parametrize("kernel", ["curvature", "phase_cost", "cc_table", "cc_cost"])
def test_lists_of_rows_must_be_given_and_fit(bound: Backend, kernel: str) -> None:
    with pytest.raises(TypeError, match="argument 'rows' is not an array"):
        call(bound, kernel, rows=None)
    with pytest.raises(ShapeError, match="rows"):
        call(bound, kernel, rows=np.array([0, 99], np.int32))
