"""Job folders: markers, manifest, continuing, and what happens when a job is stopped or killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from tiltwise.config import OutputOptions, option
from tiltwise.errors import Aborted, ConfigError, DataError, FormatError, OutputError
from tiltwise.io.star import read_star
from tiltwise.jobs import FolderJob, SilentProgress

MARKERS = {"RELION_JOB_EXIT_SUCCESS", "RELION_JOB_EXIT_FAILURE", "RELION_JOB_EXIT_ABORTED"}


class ToyOptions(OutputOptions):
    command: ClassVar[str] = "toy"
    width: int = option(3, unit="px", help="a width")
    threads: int = option(1, may_change=True, help="threads")
    source: Path | None = option(None, help="an input file")


class OtherOptions(OutputOptions):
    command: ClassVar[str] = "other"


def job(folder: Path, **values: Any) -> FolderJob:
    return FolderJob(ToyOptions(output=folder, **values), ["tiltwise", "toy", "--o", str(folder)], SilentProgress())


def markers(folder: Path) -> set[str]:
    return MARKERS & set(os.listdir(folder))


def manifest(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    return content


def events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()]


# ---- how a job ends ------------------------------------------------------------------------------------------


def test_success_leaves_marker_manifest_events_and_note(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    source = tmp_path / "in.star"
    source.write_text("x")
    with job(folder, width=5, source=source) as running:
        assert markers(folder) == set()
        assert manifest(folder)["status"] == "running"
        (folder / "out.mrc").write_bytes(b"1234")
        running.add_output(folder / "out.mrc", "DensityMap.mrc.relion.refine3d")
        running.metric("resolution_angstrom", np.float32(8.5))
        running.metric("nothing", float("nan"))
        running.warn("look out")
        running.iteration({"iteration": 1, "resolution_angstrom": np.float64(12.0)})
        with running.timing("work"):
            pass
    assert markers(folder) == {"RELION_JOB_EXIT_SUCCESS"}
    content = manifest(folder)
    assert content["status"] == "success"
    assert content["command_line"] == f"tiltwise toy --o {folder}"
    assert content["parameters"]["width"] == {"value": 5, "unit": "px", "origin": "user"}
    assert content["parameters"]["threads"]["origin"] == "default"
    assert content["inputs"] == [{"path": str(source), "bytes": 1, "mtime": round(source.stat().st_mtime, 3)}]
    assert content["outputs"][0]["bytes"] == 4
    assert content["metrics"] == {"resolution_angstrom": 8.5, "nothing": None}
    assert content["warnings"] == ["look out"]
    assert content["timings_s"]["work"] >= 0
    assert content["peak_memory_gb"] > 0
    assert [event["kind"] for event in events(folder)] == ["start", "metric", "metric", "warning", "iteration", "done"]
    assert str(folder) in (folder / "note.txt").read_text()


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system does not forget peaks")
def test_memory_is_that_of_each_job(tmp_path: Path) -> None:
    """Of a job within another one, and of one that comes after a larger one."""
    with job(tmp_path / "outer"):
        with job(tmp_path / "large"):
            held = np.ones(40_000_000)
            held += 1
            del held
        with job(tmp_path / "small"):
            pass
    outer, large, small = (manifest(tmp_path / name)["peak_memory_gb"] for name in ("outer", "large", "small"))
    assert small + 0.25 < large <= outer


def test_output_nodes_have_the_columns_of_both_generations(tmp_path: Path) -> None:
    with job(tmp_path / "job") as running:
        for name, label in (
            ("run_data.star", "ParticleGroupMetadata.star.relion.refine3d"),
            ("half 1.mrc", "DensityMap.mrc.relion.halfmap.refine3d"),
            ("report.html", None),
        ):
            running.path(name).touch()
            running.add_output(running.path(name), label)
    block = read_star(tmp_path / "job" / "RELION_OUTPUT_NODES.star")["output_nodes"]
    assert block.text("rlnPipeLineNodeName") == [str(tmp_path / "job" / n) for n in ("run_data.star", "half 1.mrc")]
    assert block.text("rlnPipeLineNodeTypeLabel")[1] == "DensityMap.mrc.relion.halfmap.refine3d"
    assert block.integers("rlnPipeLineNodeType").tolist() == [3, 10]


def test_error_of_the_user_leaves_failure_marker_and_message(tmp_path: Path) -> None:
    with pytest.raises(DataError), job(tmp_path / "job"):
        raise DataError("no particles", where="p.star")
    assert markers(tmp_path / "job") == {"RELION_JOB_EXIT_FAILURE"}
    assert manifest(tmp_path / "job")["error"] == {"type": "DataError", "message": "no particles\n  where: p.star"}
    assert not (tmp_path / "job" / "crash.txt").exists()


def test_bug_leaves_failure_marker_and_traceback(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), job(tmp_path / "job"):
        _ = 1 / 0
    assert markers(tmp_path / "job") == {"RELION_JOB_EXIT_FAILURE"}
    assert "ZeroDivisionError" in (tmp_path / "job" / "crash.txt").read_text()


def test_abort_file_of_relion_stops_the_job(tmp_path: Path) -> None:
    def work() -> None:
        with job(tmp_path / "job") as running:
            running.check_abort()
            running.path("RELION_JOB_ABORT_NOW").touch()
            running.check_abort()

    with pytest.raises(Aborted) as caught:
        work()
    assert caught.value.exit_code == 6
    assert markers(tmp_path / "job") == {"RELION_JOB_EXIT_ABORTED"}
    assert not (tmp_path / "job" / "RELION_JOB_ABORT_NOW").exists()


def test_stale_markers_are_removed(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    for name in (*MARKERS, "RELION_JOB_ABORT_NOW"):
        (folder / name).touch()
    with job(folder) as running:
        assert markers(folder) == set()
        running.check_abort()


def test_result_that_cannot_be_recorded_is_a_failure(tmp_path: Path) -> None:
    def work() -> None:
        with job(tmp_path / "job") as running:
            running.path("job.json").unlink()
            running.path("job.json").mkdir()

    with pytest.raises(OutputError):
        work()
    assert markers(tmp_path / "job") == {"RELION_JOB_EXIT_FAILURE"}


def test_signal_handlers_are_given_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with job(tmp_path / "job"):
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_job_runs_in_a_thread_that_may_not_have_signals(tmp_path: Path) -> None:
    def work() -> None:
        with job(tmp_path / "job"):
            pass

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert markers(tmp_path / "job") == {"RELION_JOB_EXIT_SUCCESS"}


# ---- folders that cannot be used -----------------------------------------------------------------------------


def test_file_in_the_way_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "job").write_text("a file")
    with pytest.raises(OutputError) as caught, job(tmp_path / "job"):
        pass
    assert caught.value.exit_code == 5
    assert "fix:" in str(caught.value)
    assert (tmp_path / "job").read_text() == "a file"


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder nobody can write to")
def test_unwritable_folder_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught, job(Path("/proc/tiltwise-test")):
        pass
    assert "--o /proc/tiltwise-test" in str(caught.value)


def test_second_process_in_one_folder_is_refused(tmp_path: Path) -> None:
    with job(tmp_path / "job"):
        with pytest.raises(OutputError, match="another run") as caught, job(tmp_path / "job"):
            pass
        assert f"process {os.getpid()}" in str(caught.value)
        assert markers(tmp_path / "job") == set()
    with job(tmp_path / "job"):
        pass


# ---- continuing ----------------------------------------------------------------------------------------------


def interrupted(folder: Path, **values: Any) -> None:
    def work() -> None:
        with job(folder, **values) as running:
            running.save_checkpoint("state", {"map": np.arange(6.0).reshape(2, 3)}, {"iteration": 3})
            raise Aborted("stop")

    with pytest.raises(Aborted):
        work()


def test_same_options_continue_from_the_checkpoint(tmp_path: Path) -> None:
    interrupted(tmp_path / "job")
    with job(tmp_path / "job", threads=8) as running:
        saved = running.load_checkpoint("state")
        assert saved is not None
        np.testing.assert_array_equal(saved.arrays["map"], np.arange(6.0).reshape(2, 3))
        assert saved.state == {"iteration": 3}
        assert running.load_checkpoint("other") is None
    assert [run["status"] for run in manifest(tmp_path / "job")["runs"]] == ["aborted", "success"]
    assert (tmp_path / "job" / "note.txt").read_text().count("++++") == 2


def test_other_options_are_refused_with_the_difference(tmp_path: Path) -> None:
    interrupted(tmp_path / "job")
    before = manifest(tmp_path / "job")
    with pytest.raises(ConfigError) as caught, job(tmp_path / "job", width=7):
        pass
    assert "--width: was 3, now 7" in str(caught.value)
    assert "--redo" in str(caught.value)
    assert manifest(tmp_path / "job") == before
    assert markers(tmp_path / "job") == {"RELION_JOB_EXIT_ABORTED"}


def test_redo_starts_again(tmp_path: Path) -> None:
    interrupted(tmp_path / "job")
    with job(tmp_path / "job", width=7, redo=True) as running:
        assert running.load_checkpoint("state") is None


def test_results_of_a_finished_job_are_protected(tmp_path: Path) -> None:
    with job(tmp_path / "job"):
        pass
    with pytest.raises(ConfigError, match="different calculation"), job(tmp_path / "job", width=7):
        pass
    with job(tmp_path / "job"):
        pass


def test_failed_job_without_checkpoint_may_be_corrected(tmp_path: Path) -> None:
    with pytest.raises(DataError), job(tmp_path / "job"):
        raise DataError("wrong file")
    with job(tmp_path / "job", width=7):
        pass
    assert markers(tmp_path / "job") == {"RELION_JOB_EXIT_SUCCESS"}


def test_changed_input_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "in.star"
    source.write_text("x")
    interrupted(tmp_path / "job", source=source)
    source.write_text("xy")
    with pytest.raises(ConfigError, match=r"in\.star: changed since"), job(tmp_path / "job", source=source):
        pass


def test_folder_of_another_command_is_refused(tmp_path: Path) -> None:
    with job(tmp_path / "job"):
        pass
    other = FolderJob(OtherOptions(output=tmp_path / "job"), ["tiltwise", "other"], SilentProgress())
    with pytest.raises(ConfigError, match="another command"), other:
        pass


def test_damaged_files_are_reported_by_name(tmp_path: Path) -> None:
    interrupted(tmp_path / "job")
    checkpoint = tmp_path / "job" / ".state" / "state.npz"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-40])
    with pytest.raises(FormatError, match=r"state\.npz"), job(tmp_path / "job") as running:
        running.load_checkpoint("state")
    (tmp_path / "job" / "job.json").write_text("{")
    with pytest.raises(FormatError, match=r"job\.json"), job(tmp_path / "job"):
        pass


def test_checkpoints_hold_no_python_objects(tmp_path: Path) -> None:
    with job(tmp_path / "job") as running:
        with pytest.raises(TypeError, match="objects"):
            running.save_checkpoint("state", {"a": np.array([{}])}, {})
        with pytest.raises(TypeError):
            running.save_checkpoint("state", {}, {"a": np.arange(3)})
        assert running.load_checkpoint("state") is None


# ---- signals, in a process of its own ------------------------------------------------------------------------

WORKER = """
import sys, time
from pathlib import Path
from typing import ClassVar
import numpy as np
from tiltwise.config import OutputOptions
from tiltwise.errors import TiltwiseError
from tiltwise.jobs import FolderJob, SilentProgress

class ToyOptions(OutputOptions):
    command: ClassVar[str] = "toy"

try:
    with FolderJob(ToyOptions(output=Path(sys.argv[1])), sys.argv, SilentProgress()) as job:
        if "checkpoint" in sys.argv:
            job.save_checkpoint("state", {"a": np.zeros(3)}, {})
        print("ready", flush=True)
        for _ in range(600):
            time.sleep(0.05)
            if "deaf" not in sys.argv:
                job.check_abort()
except TiltwiseError as error:
    sys.exit(error.exit_code)
"""


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WORKER), str(folder), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def finish(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    process.stdout.close()
    return process.wait(timeout=20)


@pytest.mark.parametrize(
    "number, words, code",
    [
        (signal.SIGINT, (), 6),
        (signal.SIGTERM, (), 6),
        (signal.SIGINT, ("checkpoint",), 6),
        (signal.SIGTERM, ("checkpoint",), 75),
        (signal.SIGUSR1, ("checkpoint",), 75),
    ],
)
def test_signals_end_the_job_in_order(tmp_path: Path, number: int, words: tuple[str, ...], code: int) -> None:
    process = start(tmp_path / "job", *words)
    process.send_signal(number)
    assert finish(process) == code
    assert markers(tmp_path / "job") == {"RELION_JOB_EXIT_ABORTED"}
    assert manifest(tmp_path / "job")["status"] == "aborted"


def test_second_interrupt_stops_at_once(tmp_path: Path) -> None:
    process = start(tmp_path / "job", "deaf")
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert finish(process) != 0
    assert markers(tmp_path / "job") == {"RELION_JOB_EXIT_ABORTED"}


def test_killed_job_gets_its_failure_marker(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    process = start(folder, "checkpoint")
    process.kill()
    finish(process)
    deadline = time.monotonic() + 10
    while markers(folder) == set() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert markers(folder) == {"RELION_JOB_EXIT_FAILURE"}
    deadline = time.monotonic() + 10
    while events(folder)[-1]["kind"] != "killed" and time.monotonic() < deadline:
        time.sleep(0.02)
    assert events(folder)[-1]["kind"] == "killed"
    # and its folder is free to be continued
    process = start(folder)
    process.send_signal(signal.SIGINT)
    assert finish(process) == 6
