"""What `serve` answers: results of one folder, to who may see them, and nothing else."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import made_results
import pytest

from diffscope.errors import DataError, StoreError
from diffscope.report import serving
from diffscope.report.views.base import view_of

TOKEN = "a_token;of=thirty&letters%or+so"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two results at different depths, a secret among them, and one outside."""
    outside = tmp_path_factory.mktemp("outside")
    (outside / "secret.json").write_text("{}")
    root = outside / "served"
    made = made_results.sweep()
    for place in ("a", "deep/b c"):
        view_of(made).save(made, root / place, figures=False)
    (root / "a" / "key.pem").write_text("secret")
    (root / "a" / ".hidden.json").write_text("{}")
    (root / "a" / "link.json").symlink_to(outside / "secret.json")
    (root / "broken").mkdir()
    (root / "broken" / "result.json").write_text("not JSON <b>")
    (root / "deep" / "b c" / "report.html").unlink()
    return root


def started(folder: Path, host: str = "127.0.0.1", token: str | None = None) -> Iterator[serving.Server]:
    server = serving.make_server(folder, host, 0, token)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[serving.Server]:
    yield from started(folder)


@pytest.fixture(scope="module")
def guarded(folder: Path) -> Iterator[serving.Server]:
    yield from started(folder, token=TOKEN)


def ask(
    server: serving.Server, path: str, method: str = "GET", **headers: str
) -> tuple[int, str, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=30)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    text = answer.read().decode("utf-8")
    connection.close()
    return answer.status, text, answer.headers


def test_the_list_leads_to_each_result(server: serving.Server) -> None:
    status, text, _ = ask(server, "/")
    assert status == 200
    assert 'href="a/report.html"' in text
    assert 'href="deep/b%20c/report.html"' in text
    assert "semantic window found" in text
    assert "&lt;b&gt;" not in text  # of a file that is no result only that it is none is said
    assert "not JSON" in text


def test_a_page_is_served_and_made_where_there_is_none(server: serving.Server, folder: Path) -> None:
    assert ask(server, "/a/report.html")[:2] == (200, (folder / "a" / "report.html").read_text("utf-8"))
    assert ask(server, "/a")[2]["Location"] == "/a/report.html"
    status, text, _ = ask(server, "/deep/b%20c/report.html")
    assert status == 200
    assert "semantic window found" in text
    assert not (folder / "deep" / "b c" / "report.html").exists()  # it is read-only
    assert ask(server, "/a/result.json")[2]["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.json", "/%2e%2e/secret.json", "/a/../../secret.json", "/a/%2e%2e%2f%2e%2e%2fsecret.json",
        "//secret.json", "/a/..%5c..%5csecret.json", "/a/link.json", "/a/key.pem", "/a/.hidden.json",
        "/a/result.json%00.html", "/nothing",
        "/etc/passwd", "//etc/passwd", "/file:///etc/passwd", "/deep", "/report.html",
    ],
)  # fmt: skip
def test_nothing_else_is_seen(server: serving.Server, path: str) -> None:
    assert ask(server, path)[:2] == (404, "no such result\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_can_be_done_but_look(server: serving.Server, method: str) -> None:
    assert ask(server, "/a/result.json", method)[0] == 501


def test_a_head_has_no_body(server: serving.Server) -> None:
    assert ask(server, "/", "HEAD")[:2] == (200, "")


@pytest.mark.parametrize(
    ("host", "expected"), [("evil.example", 421), ("127.0.0.1.evil.example:80", 421), ("localhost:1", 200)]
)
def test_a_name_that_was_turned_to_this_machine_is_refused(server: serving.Server, host: str, expected: int) -> None:
    assert ask(server, "/", Host=host)[0] == expected


def test_without_the_token_nothing_is_seen(guarded: serving.Server) -> None:
    for path in ("/", "/a/report.html", "/nothing", "/?token=", "/?token=a", f"/?key={quote(TOKEN)}"):
        status, text, _ = ask(guarded, path)
        assert status == 403, path
        assert "token is needed" in text
    assert ask(guarded, "/", Cookie="diffscope=wrong")[0] == 403


def test_the_token_is_remembered_and_leaves_the_address(guarded: serving.Server) -> None:
    address = guarded.address
    assert address.startswith("http://127.0.0.1:")
    status, _, headers = ask(guarded, "/?" + address.partition("?")[2])
    assert (status, headers["Location"]) == (303, "/")
    cookie = headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Strict"} <= set(cookie.split("; "))
    assert ask(guarded, "/", Cookie=cookie.split(";")[0])[0] == 200


def test_a_redirect_stays_on_this_machine(guarded: serving.Server) -> None:
    location = ask(guarded, f"//evil.example/?token={quote(TOKEN)}")[2]["Location"]
    assert location.startswith("/")
    assert not location.startswith("//")


def test_answers_carry_what_keeps_a_browser_from_running_them(server: serving.Server) -> None:
    for path, policy in (("/a/result.json", "default-src 'none'"), ("/", "frame-ancestors 'none'")):
        headers = ask(server, path)[2]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Content-Security-Policy"].startswith(policy)


@pytest.mark.parametrize(
    ("host", "alone"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("192.168.1.5", False), ("example.org", False)],
)  # fmt: skip
def test_who_can_ask(host: str, alone: bool) -> None:
    assert serving.is_loopback(host) is alone


def test_a_folder_that_is_a_result_shows_it(folder: Path) -> None:
    for server in started(folder / "a"):
        assert ask(server, "/")[2]["Location"] == "/report.html"
        assert ask(server, "/report.html")[0] == 200


def test_what_cannot_be_served_is_said(folder: Path, server: serving.Server) -> None:
    with pytest.raises(DataError, match="no such folder"):
        serving.serve(folder / "nothing", "127.0.0.1", 0, None)
    with pytest.raises(StoreError, match="cannot be listened on"):
        serving.make_server(folder, "127.0.0.1", server.server_address[1], None)
