"""The CUDA plugin as it is shipped: loads anywhere, exports one symbol, says clearly when it cannot run."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from tiltwise.errors import BackendUnavailable
from tiltwise.kernels.select import available_backends, load_backend

native = pytest.importorskip(
    "tiltwise.kernels.native", reason="the extension module is not built", exc_type=ImportError
)
PLUGINS = {"cuda": {"tw_backend"}, "cuda-emu": {"tw_backend", "tw_emu_"}}


@pytest.fixture(params=sorted(PLUGINS))
def name(request):
    if not native.plugin_path(request.param).exists():
        pytest.skip(f"the plugin {request.param} is not built")
    return request.param


def _run(*command):
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_only_the_table_is_exported(name):
    exported = {line.split()[-1] for line in _run("nm", "-D", "--defined-only", native.plugin_path(name)).splitlines()}
    assert "tw_backend" in exported
    assert {re.sub(r"^(tw_emu_).*", r"\1", symbol) for symbol in exported} == PLUGINS[name]


def test_no_cuda_library_is_needed(name):
    needed = re.findall(r"NEEDED.*\[(.*)\]", _run("readelf", "-d", native.plugin_path(name)))
    allowed = ("libstdc++.", "libm.", "libgcc_s.", "libc.", "libgomp.", "libpthread.", "libdl.", "librt.", "ld-linux")
    assert needed
    assert all(library.startswith(allowed) for library in needed), needed


def test_it_runs_or_says_why_not(name):
    backend = native.open_plugin(name)
    assert backend.name == name
    reason = backend.unavailable_reason()
    assert (reason == "") == (name in available_backends(include_test_only=True))
    if reason:
        assert re.search("driver|device|memory", reason)
        with pytest.raises(BackendUnavailable, match=re.escape(reason)):
            load_backend(name)
