"""Choice of backend and of the number of threads."""

from __future__ import annotations

from pathlib import Path

import pytest

from tiltwise.errors import BackendUnavailable, ConfigError
from tiltwise.kernels import select, threads
from tiltwise.kernels.select import available_backends, backend_report, load_backend


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("TILTWISE_BACKEND", "TILTWISE_ISA", "TILTWISE_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(variable, raising=False)


def test_the_build_has_its_backends() -> None:
    names = available_backends()
    assert names[:2] == ["reference", "host"]
    # a level that is lost would only be slow, and nobody would know
    assert "simd-v1" in names or "simd-neon" in names
    assert "cuda-emu" not in names


def test_auto_is_the_fastest() -> None:
    assert load_backend().name == available_backends()[-1]


def test_environment_names_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILTWISE_BACKEND", "reference")
    assert load_backend().name == "reference"
    assert load_backend("host").name == "host"  # a name in the call is stronger
    assert [line.name for line in backend_report() if line.active] == ["reference"]


def test_environment_names_the_level(monkeypatch: pytest.MonkeyPatch) -> None:
    level = next(name for name in available_backends() if name.startswith("simd-")).removeprefix("simd-")
    monkeypatch.setenv("TILTWISE_ISA", level)
    assert load_backend().name == f"simd-{level}"


def test_unknown_backend() -> None:
    with pytest.raises(BackendUnavailable, match=r"'abacus' cannot be used: there is no backend[\s\S]*doctor"):
        load_backend("abacus")


def test_report_gives_reasons() -> None:
    lines = {line.name: line for line in backend_report()}
    assert lines["host"].compiled
    assert lines["host"].available
    assert not lines["host"].reason
    assert lines["cuda-emu"].test_only
    for line in lines.values():
        assert line.available == (not line.reason)
    assert sum(line.active for line in lines.values()) == 1


def test_a_plugin_that_is_not_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from tiltwise.kernels import native

    (tmp_path / "libtiltwise_cuda.so").write_text("not a library")
    monkeypatch.setattr(native, "PACKAGE", tmp_path)
    select._found.cache_clear()
    try:
        line = next(line for line in backend_report() if line.name == "cuda")
        assert line.compiled
        assert not line.available
        assert "cannot be loaded" in line.reason
    finally:
        select._found.cache_clear()


class TestThreads:
    def test_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(threads, "_quota_of_this_process", lambda: None)
        monkeypatch.setattr(threads.os, "sched_getaffinity", lambda _: range(16), raising=False)
        assert threads.default_threads() == 16
        monkeypatch.setenv("OMP_NUM_THREADS", "6,2")
        assert threads.default_threads() == 6
        monkeypatch.setenv("TILTWISE_NUM_THREADS", "3")
        assert threads.default_threads() == 3
        monkeypatch.setenv("TILTWISE_NUM_THREADS", "64")
        assert threads.default_threads() == 16

    @pytest.mark.parametrize("text", ["0", "-2", "many", "1.5"])
    def test_nonsense(self, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
        monkeypatch.setenv("TILTWISE_NUM_THREADS", text)
        with pytest.raises(ConfigError, match="TILTWISE_NUM_THREADS"):
            threads.default_threads()

    @pytest.mark.parametrize(("text", "count"), [("max 100000", None), ("150000 100000", 2), ("5000 100000", 1)])
    def test_control_group(self, tmp_path: Path, text: str, count: int | None) -> None:
        (tmp_path / "cpu.max").write_text(text + "\n")
        assert threads._cgroup_quota(tmp_path, tmp_path / "absent") == count

    def test_nested_control_groups(self, tmp_path: Path) -> None:
        inner = tmp_path / "slurm" / "job"
        inner.mkdir(parents=True)
        (inner / "cpu.max").write_text("max 100000\n")
        (inner.parent / "cpu.max").write_text("300000 100000\n")
        (tmp_path / "membership").write_text("0::/slurm/job\n")
        assert threads._cgroup_quota(tmp_path, tmp_path / "membership") == 3

    def test_old_control_group(self, tmp_path: Path) -> None:
        (tmp_path / "cpu").mkdir()
        (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
        (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
        assert threads._cgroup_quota(tmp_path, tmp_path / "absent") is None
        (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("400000\n")
        assert threads._cgroup_quota(tmp_path, tmp_path / "absent") == 4
        assert threads._cgroup_quota(tmp_path / "nowhere", tmp_path / "absent") is None
