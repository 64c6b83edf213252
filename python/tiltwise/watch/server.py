"""A small server on the loopback interface: the page, the state of all jobs, and their reports.

Whoever can reach the port must also know the token, which is in the address and new in every run.  Requests under
another host name, or from another page, are refused: so no site that is open in the same browser can ask.  Jobs are
found by their names in a list, never by a path out of a request.
"""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tiltwise.errors import OutputError
from tiltwise.exec.records import JobRecord
from tiltwise.jobs.records import lies_in, log_tail
from tiltwise.jobs.relion import ABORT_NOW
from tiltwise.report.html import render
from tiltwise.report.record import sections_of, summary_of
from tiltwise.watch.state import ProjectState

ADDRESS = "127.0.0.1"
HOSTS = ("127.0.0.1", "localhost")
"""Names under which a browser on this machine, or behind ssh -L, reaches the server."""
PERIOD_S = 1.0
"""Seconds between two looks for news."""
SILENCE_S = 15.0
"""Seconds after which a comment shows that the connection lives."""
PAGE_POLICY = "default-src 'none'; style-src 'nonce-{0}'; script-src 'nonce-{0}'; connect-src 'self'; base-uri 'none'"
PAGE_POLICY += "; form-action 'none'; frame-ancestors 'none'"
REPORT_POLICY = "sandbox allow-scripts allow-downloads allow-popups"
"""Reports get an origin of their own, from which nothing here can be asked."""


class WatchServer(ThreadingHTTPServer):
    """Serves one project until it is shut down.

    Parameters
    ----------
    project
        folder of the project.
    port
        0 takes a free one.
    allow_abort
        whether jobs may be stopped from the page; without, nothing is ever written.

    Raises
    ------
    OutputError
        if the port is taken.
    """

    daemon_threads = True

    def __init__(self, project: Path, port: int = 0, *, allow_abort: bool = False) -> None:
        self.state = ProjectState(project)
        self.allow_abort = allow_abort
        self.token = secrets.token_urlsafe(24)
        self.closing = threading.Event()
        try:
            super().__init__((ADDRESS, port), _Handler)
        except OSError as error:
            raise OutputError(
                "the port cannot be used",
                where=f"--port {port}",
                found=error.strerror,
                fix="leave --port out: a free one is taken",
            ) from error

    @property
    def url(self) -> str:
        """Address of the page, with the token."""
        return f"http://{ADDRESS}:{self.server_port}/{self.token}/"

    def shutdown(self) -> None:
        """End all streams, then the server."""
        self.closing.set()
        super().shutdown()


class _Refused(Exception):
    """A request that gets a status and a sentence."""

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    server: WatchServer
    server_version = "tiltwise"
    sys_version = ""
    timeout = 30.0

    def do_GET(self) -> None:
        """Page, state, stream, report or record."""
        self._answer(self._get)

    def do_HEAD(self) -> None:
        """Refused: nothing asks for it."""
        self.send_error(HTTPStatus.METHOD_NOT_ALLOWED)

    def do_POST(self) -> None:
        """Stop a job."""
        self._answer(self._post)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the terminal belongs to the address."""

    # ---- who asks ---------------------------------------------------------------------------------------

    def _answer(self, work: object) -> None:
        try:
            parts = self._checked()
            assert callable(work)
            work(parts)
        except _Refused as refusal:
            self._send(refusal.status, "text/plain; charset=utf-8", str(refusal) + "\n")
        except (ConnectionError, TimeoutError):  # the browser has gone, or sleeps
            self.close_connection = True

    def _checked(self) -> list[str]:
        """Parts of the path after the token.

        Raises
        ------
        _Refused
            if host, origin or token are not ours.
        """
        hosts = self.headers.get_all("Host") or []
        try:
            host = urlsplit(f"//{hosts[0]}").hostname if len(hosts) == 1 else None
            path = urlsplit(self.path).path
        except ValueError:  # brackets that are no address
            host, path = None, ""
        if host not in HOSTS:
            raise _Refused(HTTPStatus.FORBIDDEN, "this server answers under 127.0.0.1 and localhost alone")
        origin = self.headers.get("Origin")
        if origin is not None and origin != f"http://{hosts[0]}":
            raise _Refused(HTTPStatus.FORBIDDEN, "requests from other pages are refused")
        _, token, *rest = path.split("/") if path.startswith("/") else ["", ""]
        if not hmac.compare_digest(token.encode("utf-8", "replace"), self.server.token.encode()):
            raise _Refused(HTTPStatus.NOT_FOUND, "open the address that tiltwise watch has printed, token included")
        if not rest:
            raise _Refused(HTTPStatus.NOT_FOUND, "the address ends with a slash")
        return [unquote(part) for part in rest]

    def _job(self, parts: list[str]) -> JobRecord:
        record = self.server.state.records().get("/".join(parts))
        if record is None:
            raise _Refused(HTTPStatus.NOT_FOUND, "there is no such job")
        return record

    # ---- what they get ----------------------------------------------------------------------------------

    def _get(self, parts: list[str]) -> None:
        match parts:
            case [""]:
                self._page()
            case ["state.json"]:
                self._send(HTTPStatus.OK, "application/json", self.server.state.text())
            case ["events"]:
                self._stream()
            case ["report", *name]:
                self._report(self._job(name))
            case ["record", *name]:
                record = self._job(name)
                log = log_tail(record.folder, root=self.server.state.project)
                text = render(record.name, summary_of(record), sections_of(record, log))
                self._send(HTTPStatus.OK, "text/html; charset=utf-8", text, REPORT_POLICY)
            case _:
                raise _Refused(HTTPStatus.NOT_FOUND, "there is nothing here")

    def _post(self, parts: list[str]) -> None:
        match parts:
            case ["abort", *name]:
                self._abort(self._job(name))
            case _:
                raise _Refused(HTTPStatus.NOT_FOUND, "there is nothing here")

    def _page(self) -> None:
        nonce = secrets.token_urlsafe(12)
        page = (files("tiltwise.watch") / "page.html").read_text(encoding="utf-8")
        page = page.replace("{nonce}", nonce).replace("{abort}", "yes" if self.server.allow_abort else "no")
        page = page.replace("{project}", _escaped(self.server.state.project.name))
        self._send(HTTPStatus.OK, "text/html; charset=utf-8", page, PAGE_POLICY.format(nonce))

    def _report(self, record: JobRecord) -> None:
        # A report that is a link could lead out of the project.
        path = record.report
        if path is None or not lies_in(path, self.server.state.project):
            raise _Refused(HTTPStatus.NOT_FOUND, "the job has no report yet")
        self._send(HTTPStatus.OK, "text/html; charset=utf-8", path.read_bytes(), REPORT_POLICY)

    def _stream(self) -> None:
        """Server-Sent Events: the whole state whenever it has changed."""
        self.send_response(HTTPStatus.OK)
        self._headers("text/event-stream")
        self.end_headers()
        sent, last = "", time.monotonic()
        while not self.server.closing.wait(PERIOD_S if sent else 0.0):
            content = self.server.state.text()
            if content != sent:
                self.wfile.write(f"data: {content}\n\n".encode())
                sent, last = content, time.monotonic()
            elif time.monotonic() - last > SILENCE_S:
                self.wfile.write(b": still here\n\n")
                last = time.monotonic()
            self.wfile.flush()
        self.close_connection = True

    def _abort(self, record: JobRecord) -> None:
        if not self.server.allow_abort:
            raise _Refused(HTTPStatus.FORBIDDEN, "stopping jobs was not allowed: tiltwise watch --allow-abort")
        if record.state not in ("running", "unknown"):
            raise _Refused(HTTPStatus.CONFLICT, f"the job does not run: it is {record.state}")
        try:
            (record.folder / ABORT_NOW).touch()
        except OSError as error:
            raise _Refused(
                HTTPStatus.INTERNAL_SERVER_ERROR, f"{record.folder / ABORT_NOW} cannot be written: {error.strerror}"
            ) from error
        self._send(HTTPStatus.OK, "text/plain; charset=utf-8", "asked to stop at its next safe point\n")

    def _send(self, status: HTTPStatus, kind: str, content: str | bytes, policy: str | None = None) -> None:
        body = content.encode("utf-8") if isinstance(content, str) else content
        self.send_response(status)
        self._headers(kind, policy)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _headers(self, kind: str, policy: str | None = None) -> None:
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Content-Security-Policy", policy or "default-src 'none'")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
