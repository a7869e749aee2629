"""A folder's results in a browser: read-only, nothing outside of the folder, and to this machine alone unless told.

Whoever asks has to know the token where others than this machine can ask; where they cannot, requests have to be for
this machine by name, lest a page of the internet have a browser ask for its own address that was turned to ours.
"""

from __future__ import annotations

import contextlib
import hmac
import ipaddress
import os
import secrets
import signal
import socket
from collections.abc import Iterator
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from diffscope.errors import DataError, DiffscopeError, StoreError
from diffscope.report import terminal
from diffscope.report.page import PAGE, beside, document
from diffscope.results import RESULT

KINDS = {
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".csv": "text/csv; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".pdf": "application/pdf",
}
"""What commands write into a folder of results; other files in it are nobody's business."""
COOKIE = "diffscope"
MOST = 1000
"""Results that the list names."""
NAMES = {"127.0.0.1", "localhost", "[::1]", "::1"}


def serve(folder: Path, host: str, port: int, token: str | None) -> None:
    """Answers until it is interrupted.

    Args:
        folder: That holds results.
        host: Address to listen on.
        port: To listen on; 0 for any.
        token: What a browser has to know; None: one is made where others than this machine can ask.

    Raises:
        DataError: There is no such folder.
        StoreError: The address cannot be had.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected one that holds results, as --out wrote them")
    alone = is_loopback(host)
    server = make_server(folder, host, port, token or (None if alone else secrets.token_urlsafe(18)))
    with server:
        print(server.address, flush=True)
        if not alone:
            terminal.warn("others can see these results too, over plain HTTP; give them the address with care")
        terminal.note(f"serving {folder}, read-only; end with Ctrl-C")
        with _interruptible(), contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Within, Ctrl-C is KeyboardInterrupt: here it is how one ends, and no failure."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def is_loopback(host: str) -> bool:
    """Whether only this machine can ask at an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Server(ThreadingHTTPServer):
    """With what its handlers have to know."""

    daemon_threads = True
    folder: Path
    token: str | None
    host: str

    @property
    def address(self) -> str:
        """What a browser is to be given."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        key = "" if self.token is None else f"?token={quote(self.token, safe='')}"
        return f"http://{name}:{self.server_address[1]}/{key}"


def make_server(folder: Path, host: str, port: int, token: str | None) -> Server:
    """A server that listens and does not answer yet.

    Raises:
        StoreError: The address cannot be had.
    """
    kind = type("_Server", (Server,), {"address_family": socket.AF_INET6}) if ":" in host else Server
    try:
        server: Server = kind((host, port), _Handler)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(f"{host}:{port}: cannot be listened on: {reason}; choose another `port=`") from None
    server.folder, server.token, server.host = folder.resolve(), token, host
    return server


class _Handler(BaseHTTPRequestHandler):
    server: Server
    server_version = "diffscope"
    sys_version = ""
    timeout = 30

    def do_GET(self) -> None:
        """One file, the page of one result, or the list of all."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """The same without the contents."""
        self._answer(body=False)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: an address may hold the token."""

    def _answer(self, body: bool) -> None:
        asked = urlsplit(self.path)
        if not self._is_for_us():
            return self._refuse(HTTPStatus.MISDIRECTED_REQUEST, "ask for this machine by its own name")
        if not self._is_known():
            if not self._brings_token(asked.query):
                return self._refuse(HTTPStatus.FORBIDDEN, "a token is needed: take the whole address that was printed")
            return self._remember(asked.path)
        found = find(self.server.folder, asked.path)
        if found is None:
            return self._refuse(HTTPStatus.NOT_FOUND, "no such result")
        if found.is_dir() and (found / RESULT).is_file() and not self._is_list(found):
            return self._redirect(f"{asked.path.rstrip('/')}/{PAGE}")
        try:
            kind, content = _content(self.server.folder, found)
        except (OSError, DiffscopeError) as error:
            return self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
        return self._send(HTTPStatus.OK, kind, content, body)

    def _is_list(self, found: Path) -> bool:
        """Whether there is more to see in a folder than the result that it is."""
        return found == self.server.folder and list(results_in(found)) != [found]

    # --- who may ask

    def _is_for_us(self) -> bool:
        """Where only this machine can ask, it has to name this machine."""
        if not is_loopback(self.server.host):
            return True
        return self.headers.get("Host", "").rpartition(":")[0] in NAMES | {self.server.host, f"[{self.server.host}]"}

    def _is_known(self) -> bool:
        if self.server.token is None:
            return True
        try:
            cookie = SimpleCookie(self.headers.get("Cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return cookie is not None and self._is_token(unquote(cookie.value))

    def _brings_token(self, query: str) -> bool:
        return any(self._is_token(given) for given in parse_qs(query).get("token", ()))

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), (self.server.token or "").encode())

    def _remember(self, path: str) -> None:
        """Keeps the token out of addresses, which people copy."""
        value = quote(self.server.token or "", safe="")
        self._redirect(path, {"Set-Cookie": f"{COOKIE}={value}; HttpOnly; SameSite=Strict; Path=/"})

    # --- what is answered

    def _redirect(self, path: str, headers: dict[str, str] | None = None) -> None:
        local = "/" + quote(unquote(path).lstrip("/\\"), safe="/")  # never to another machine, as //name would
        self._send(HTTPStatus.SEE_OTHER, "text/plain", b"", True, {"Location": local, **(headers or {})})

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self._send(status, "text/plain; charset=utf-8", f"{why}\n".encode("utf-8", "backslashreplace"), True)

    def _send(
        self, status: HTTPStatus, kind: str, content: bytes, body: bool, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        policy = "" if kind.startswith("text/html") else "default-src 'none'; style-src 'unsafe-inline'; "
        sent = {
            "Content-Type": kind,
            "Content-Length": str(len(content)),
            "Cache-Control": "no-store",
            "Content-Security-Policy": f"{policy}frame-ancestors 'none'",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            **(headers or {}),
        }
        for name, value in sent.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


def find(folder: Path, path: str) -> Path | None:
    """The file or folder that a path of an address stands for; None where there is none that may be seen.

    Args:
        folder: Resolved.
        path: Of the address, still quoted.
    """
    parts = [part for part in unquote(path, errors="surrogateescape").split("/") if part]
    if any(part.startswith(".") or "\\" in part or "\0" in part or ":" in part for part in parts):
        return None
    place = folder.joinpath(*parts)
    try:
        found = place.parent.resolve(strict=True) / PAGE if place.name == PAGE else place.resolve(strict=True)
    except (OSError, RuntimeError, ValueError):
        return None
    if not found.is_relative_to(folder):  # a link that leads outside
        return None
    if found.name == PAGE:
        return found if (found.parent / RESULT).is_file() else None
    if found.is_dir():
        return found if found == folder or (found / RESULT).is_file() else None
    return found if found.is_file() and found.suffix.lower() in KINDS else None


def _content(folder: Path, found: Path) -> tuple[str, bytes]:
    if found.is_dir():
        text = document.listing(folder.name, _lines(folder, list(results_in(folder))))
        return KINDS[".html"], text.encode("utf-8", "backslashreplace")
    return KINDS[found.suffix.lower()], _page(found) if found.name == PAGE else found.read_bytes()


def _page(page: Path) -> bytes:
    """The page that lies there; made anew where there is none, or the result is younger."""
    result = page.parent / RESULT
    if page.is_file() and not page.is_symlink() and page.stat().st_mtime >= result.stat().st_mtime:
        return page.read_bytes()
    folder = str(page.parent)
    return beside.page([folder], [beside.read(folder)]).encode("utf-8", "backslashreplace")


def results_in(folder: Path) -> Iterator[Path]:
    """Folders of results, by name, at any depth; links are not followed."""
    count = 0
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if RESULT in files:
            yield Path(place)
            count += 1
        if count >= MOST:
            return


def _lines(folder: Path, results: list[Path]) -> list[tuple[str, str, str]]:
    """Address, name and what there is to see of each result."""
    lines = []
    for place in results:
        name = place.relative_to(folder).as_posix()
        address = PAGE if place == folder else f"{quote(os.fsencode(name))}/{PAGE}"
        try:
            said = beside.brief(str(place))
        except DiffscopeError as error:
            said = str(error)
        lines.append((address, folder.name if place == folder else name, said))
    return lines
