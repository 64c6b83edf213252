"""`tiltwise watch`: what is served, to whom, and that nothing else can be had."""

from __future__ import annotations

import http.client
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.projects import finished, gone, relion_job, unfinished
from tiltwise.cli.main import main
from tiltwise.jobs.relion import ABORT_NOW
from tiltwise.watch.server import ADDRESS, WatchServer
from tiltwise.watch.state import ProjectState

SECRET = "nobody may read this"


def made(folder: Path) -> Path:
    """A finished, a running, a killed job and one of RELION; a secret beside the project."""
    root = folder / "project"
    finished(root / "Refine3D" / "job001", resolution=9.0)
    unfinished(root / "Refine3D" / "job002", os.getpid())
    unfinished(root / "Refine3D" / "job 3 <b>", gone())
    relion_job(root / "Class3D" / "job004", [], [], None)
    (folder / "secret.html").write_text(SECRET)
    (root / "Refine3D" / "secret.txt").write_text(SECRET)
    return root


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return made(tmp_path)


def serving(project: Path, **options: bool) -> Iterator[WatchServer]:
    with WatchServer(project, **options) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def server(project: Path) -> Iterator[WatchServer]:
    yield from serving(project)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchServer]:
    """One for all tests that write nothing."""
    yield from serving(made(tmp_path_factory.mktemp("watch")))


@pytest.fixture
def stopping(project: Path) -> Iterator[WatchServer]:
    yield from serving(project, allow_abort=True)


def ask(server: WatchServer, path: str, method: str = "GET", **headers: str) -> tuple[int, str, dict[str, str]]:
    """Status, text and headers of an answer to a path below the token, exactly as it is written."""
    connection = http.client.HTTPConnection(ADDRESS, server.server_port, timeout=10)
    connection.putrequest(method, f"/{server.token}/{path}", skip_host=True)
    for name, value in {"Host": f"{ADDRESS}:{server.server_port}", **headers}.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, answer.read().decode(), {name.lower(): value for name, value in answer.getheaders()}


def test_only_this_machine_can_connect(shared: WatchServer) -> None:
    assert shared.server_address[0] == "127.0.0.1"
    assert len(shared.token) >= 32


def test_state_of_all_jobs(shared: WatchServer) -> None:
    status, text, headers = ask(shared, "state.json")
    assert status == 200
    jobs = {one["name"]: one for one in json.loads(text)}
    assert {name: one["state"] for name, one in jobs.items()} == {
        "Refine3D/job001": "finished",
        "Refine3D/job002": "running",
        "Refine3D/job 3 <b>": "killed",
        "Class3D/job004": "unknown",
    }
    assert jobs["Refine3D/job002"]["spark"] == [19.0, 18.0, 17.0]
    assert any("iteration 3" in line for line in jobs["Refine3D/job002"]["log"])
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"


def test_page_needs_nothing_from_elsewhere(shared: WatchServer) -> None:
    status, text, headers = ask(shared, "")
    assert status == 200
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "{nonce}" not in text


def test_reports_and_records(shared: WatchServer) -> None:
    status, text, headers = ask(shared, "report/Refine3D/job001")
    assert (status, text) == (200, "<p>a report")
    assert headers["content-security-policy"].startswith("sandbox")
    assert "allow-same-origin" not in headers["content-security-policy"]
    assert ask(shared, "report/Refine3D/job002")[0] == 404  # it has none yet
    status, text, _ = ask(shared, "record/Refine3D/job%203%20%3Cb%3E")
    assert status == 200
    assert "was killed" in text
    assert "job 3 &lt;b&gt;" in text


@pytest.mark.parametrize(
    "path",
    [
        "../secret.html",
        "report/../../secret.html",
        "report/..%2f..%2fsecret.html",
        "report/%2e%2e/%2e%2e/secret.html",
        "report/Refine3D/job001/../../../secret.html",
        "report/Refine3D/job001/../../Refine3D/secret.txt",
        "report/Refine3D/secret.txt",
        "report/Refine3D",
        "report//etc/passwd",
        "report/%2Fetc%2Fpasswd",
        "report/Refine3D/job001%00",
        "record/../../secret.html",
        "secret.html",
        "report/",
        "%",
    ],
)
def test_paths_lead_nowhere_else(shared: WatchServer, path: str) -> None:
    status, text, _ = ask(shared, path)
    assert status == 404
    assert SECRET not in text
    assert "root:" not in text


def test_a_report_that_is_a_link_out_of_the_project(server: WatchServer, project: Path) -> None:
    report = project / "Refine3D" / "job001" / "report.html"
    report.unlink()
    report.symlink_to(project.parent / "secret.html")
    status, text, _ = ask(server, "report/Refine3D/job001")
    assert status == 404
    assert SECRET not in text


@pytest.mark.parametrize("name", ["run.out", "run.err", "events.jsonl"])
def test_output_that_is_a_link_out_of_the_project(server: WatchServer, project: Path, name: str) -> None:
    folder = project / "Refine3D" / "job002"
    secret = project.parent / "secret.jsonl"
    secret.write_text(json.dumps({"t": 1.0, "kind": SECRET}) + "\n")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(secret)
    for path in ("state.json", "record/Refine3D/job002"):
        status, text, _ = ask(server, path)
        assert status == 200
        assert SECRET not in text
    if name != "events.jsonl":  # a link inside the project is read
        inside = project / "Refine3D" / "log.txt"
        inside.write_text("as expected\n")
        (folder / name).unlink()
        (folder / name).symlink_to(inside)
        assert "as expected" in ask(server, "record/Refine3D/job002")[1]


@pytest.mark.parametrize("job", ["Refine3D/job002", "Class3D/job004"])
@pytest.mark.parametrize("name", ["job.json", "events.jsonl", "note.txt", "run_model.star"])
def test_records_that_are_links_out_of_the_project(server: WatchServer, project: Path, name: str, job: str) -> None:
    secret = project.parent / "secret"
    if name.startswith(("job", "events")):
        content = {"command": SECRET, "command_line": SECRET, "kind": "iteration", "iteration": SECRET}
        secret.write_text(json.dumps(content) + "\n")
    else:
        secret.write_text(f"{SECRET}\n_rlnCurrentResolution 4321.0\n")
    (project / job / name).unlink(missing_ok=True)
    (project / job / name).symlink_to(secret)
    for path in ("state.json", f"record/{job}"):
        status, text, _ = ask(server, path)
        assert status == 200
        assert f"{name} is a link out of the project" in text
        assert SECRET not in text
        assert "4321" not in text


@pytest.mark.parametrize("token", ["", "wrong", "%00", "%C3%A9"])
def test_without_the_token_there_is_nothing(shared: WatchServer, token: str) -> None:
    connection = http.client.HTTPConnection(ADDRESS, shared.server_port, timeout=10)
    connection.request("GET", f"/{token}/state.json")
    answer = connection.getresponse()
    assert answer.status == 404
    assert b"Refine3D" not in answer.read()


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:80", "", "localhost@evil"])
def test_other_host_names_are_refused(shared: WatchServer, host: str) -> None:
    """A name that an attacker lets point to this machine has the cookies and scripts of the attacker."""
    assert ask(shared, "state.json", Host=host)[0] == 403


def test_through_a_tunnel_the_port_may_differ(shared: WatchServer) -> None:
    assert ask(shared, "state.json", Host="localhost:9999")[0] == 200
    assert ask(shared, "state.json", Host="localhost:9999", Origin="http://localhost:9999")[0] == 200


@pytest.mark.parametrize("origin", ["null", "http://evil.example", "https://127.0.0.1", "http://127.0.0.1:1"])
def test_other_pages_are_refused(stopping: WatchServer, project: Path, origin: str) -> None:
    for method, path in (("GET", "state.json"), ("POST", "abort/Refine3D/job002")):
        assert ask(stopping, path, method, Origin=origin)[0] == 403
    assert not (project / "Refine3D" / "job002" / ABORT_NOW).exists()


def test_nothing_is_stopped_unless_it_was_allowed(server: WatchServer, project: Path) -> None:
    before = sorted(project.rglob("*"))
    status, text, _ = ask(server, "abort/Refine3D/job002", "POST")
    assert status == 403
    assert "--allow-abort" in text
    for path in ("", "state.json", "report/Refine3D/job001", "record/Refine3D/job002"):
        ask(server, path)
    assert sorted(project.rglob("*")) == before


def test_a_running_job_is_asked_to_stop(stopping: WatchServer, project: Path) -> None:
    assert ask(stopping, "abort/Refine3D/job002", "POST")[0] == 200
    assert (project / "Refine3D" / "job002" / ABORT_NOW).exists()
    assert ask(stopping, "abort/Refine3D/job001", "POST")[0] == 409  # it has finished
    assert ask(stopping, "abort/../../outside", "POST")[0] == 404
    assert ask(stopping, "abort/Refine3D/job002", "GET")[0] == 404
    assert ask(stopping, "abort/Refine3D/job002", "PUT")[0] == 501


def test_news_are_sent(server: WatchServer, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiltwise.watch.server.PERIOD_S", 0.02)
    monkeypatch.setattr("tiltwise.watch.state.SHORTEST_S", 0.01)
    monkeypatch.setattr("tiltwise.watch.state.SHARE", 1.0)
    connection = http.client.HTTPConnection(ADDRESS, server.server_port, timeout=10)
    connection.request("GET", f"/{server.token}/events")
    answer = connection.getresponse()
    assert answer.getheader("Content-Type") == "text/event-stream"
    first = json.loads(answer.fp.readline().removeprefix(b"data: "))
    finished(project / "Refine3D" / "job009")
    for _ in range(200):  # the job is seen running first; times of the running one change, too
        line = answer.fp.readline()
        if line.startswith(b"data: ") and len(json.loads(line[6:])) == len(first) + 1:
            break
    else:
        pytest.fail("the new job was not told")
    connection.close()


def test_what_cannot_be_served_is_said(server: WatchServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", str(tmp_path / "nowhere")]) == 3
    assert main(["watch", str(tmp_path), "--port", str(server.server_port)]) == 5
    assert "--port" in capsys.readouterr().err


def test_page_in_a_browser(browser: Any, stopping: WatchServer, project: Path) -> None:
    """Cards, sparkline and button are drawn; names are text, not HTML; a dialogue comes before a job is stopped."""
    page = browser.new_page(viewport={"width": 390, "height": 844})
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto(stopping.url)
    page.wait_for_selector("article")
    assert page.locator("article").count() == 4
    assert page.locator("article.running polyline").count() == 1
    assert "job 3 <b>" in page.locator("article.killed h2").inner_text()
    assert page.locator("h2 b").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator("article.running button").click()
    for _ in range(100):
        if (project / "Refine3D" / "job002" / ABORT_NOW).exists():
            break
        page.wait_for_timeout(50)
    assert (project / "Refine3D" / "job002" / ABORT_NOW).exists()
    assert problems == []
    page.close()


def test_a_host_that_is_no_address_is_refused(shared: WatchServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(shared, "", Host="[")[0] == 403
    assert "Traceback" not in capsys.readouterr().err


def test_values_that_are_no_numbers_do_not_break_the_page(project: Path) -> None:
    path = project / "Refine3D" / "job001" / "job.json"
    content = json.loads(path.read_text())
    content["metrics"]["resolution_angstrom"] = content["peak_memory_gb"] = float("nan")
    path.write_text(json.dumps(content))
    text = ProjectState(project).text()
    assert "NaN" not in text
    assert len(json.loads(text)) == 4


def test_all_who_look_on_share_one_look(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiltwise.watch.state.SHORTEST_S", 1000.0)
    state = ProjectState(project)
    first = state.text()
    monkeypatch.setattr("tiltwise.watch.state.card", None)
    assert state.text() is first
