"""Memory that may be used, and the plan of a refinement."""

from __future__ import annotations

import platform
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from tiltwise.em.memory import plan_refine
from tiltwise.errors import ResourceError
from tiltwise.exec.memory import free_memory_bytes
from tiltwise.geometry.symmetry import symmetry_matrices
from tiltwise.kernels.select import load_backend
from tiltwise.maps.volumes import Accumulator


def test_the_control_group_limits_what_the_machine_has(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 16000 kB\nMemAvailable: 8000 kB\n")
    group = tmp_path / "cgroup"
    group.mkdir()
    assert free_memory_bytes(group, meminfo) == 8000 * 1024
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("1000\n")
    assert free_memory_bytes(group, meminfo) == 8000 * 1024
    (group / "memory.max").write_text("5000\n")
    assert free_memory_bytes(group, meminfo) == 4000
    (group / "memory.stat").write_text("anon 500\ninactive_file 700\nactive_file 9\n")
    assert free_memory_bytes(group, meminfo) == 4700, "files that were read are no memory in use"
    assert free_memory_bytes(tmp_path / "none", tmp_path / "none") is None


def test_the_plan_grows_with_the_box_and_keeps_to_the_limit() -> None:
    small, large = plan_refine(64, 2, 4.0), plan_refine(128, 2, 4.0)
    assert 7.5 * small.volumes <= large.volumes <= 8.5 * small.volumes
    assert small.total <= 4e9
    assert large.total <= 4e9
    assert "of 4.0 GB allowed" in str(small)


def test_images_are_kept_as_far_as_memory_goes() -> None:
    need = 1_000_000_000
    roomy = plan_refine(64, 2, 8.0, images=need)
    assert (roomy.images, roomy.batch) == (need, plan_refine(64, 2, 8.0).batch)
    assert plan_refine(64, 2, 8.0).images == 0
    # volumes that something else keeps are part of the plan
    assert plan_refine(64, 2, 8.0, others=10**9).total - plan_refine(64, 2, 8.0).total == 10**9
    least = roomy.total - need
    for limit, kept in ((least, 0), (least + need // 2, need // 2), (least + 2 * need, need)):
        plan = plan_refine(64, 2, limit / 1e9, images=need)
        assert abs(plan.images - kept) <= 1, "bytes lost in GB"
        assert plan.total <= limit
    assert "images kept 1.00 GB" in str(roomy)


def test_folds_that_do_not_fit_are_left_out() -> None:
    plenty = plan_refine(64, 2, 8.0, folds=5)
    assert plenty.folds == 5
    assert plenty.volumes > 3 * plan_refine(64, 2, 8.0).volumes
    tight = plan_refine(64, 2, 1.15, folds=5)
    assert 1 < tight.folds < 5
    assert tight.total <= 1.15e9
    assert plan_refine(64, 2, 0.95, folds=5).folds == 1


def test_too_little_memory_is_an_error_before_anything_is_computed() -> None:
    with pytest.raises(ResourceError, match=r"at least .* GB for maps of 256 voxels") as error:
        plan_refine(256, 2, 1.0)
    assert error.value.exit_code == 5
    assert "--memory" in str(error.value)


def test_symmetric_sums_keep_to_the_plan() -> None:
    """Both halves, one after the other in place, as a refinement does."""
    box, group, backend = 48, symmetry_matrices("C3"), load_backend("auto")
    tracemalloc.start()
    sums = {half: Accumulator.empty(box) for half in (1, 2)}
    for half in sums:
        sums[half] = sums[half].complete().symmetrised(group, backend)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= plan_refine(box, 2, 8.0, symmetric=True).volumes


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator of another C library")
def test_freed_memory_is_reused() -> None:
    script = """
import resource, numpy as np
from tiltwise.exec.memory import reuse_freed_memory
reuse_freed_memory()
def faults():
    for _ in range(5):
        parts = [np.ones(1 << 20) for _ in range(8)]  # 8 times 8 MB, 2048 pages each
        del parts
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(-faults() + faults())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 2048  # of 40 x 2048 touched
