"""The part of the Hub's API that the client needs for reading, on loopback: an endpoint, and a store of large files.

Large files (those of `LARGE`) are Git-LFS files: the endpoint answers with their sha256 and a redirect to the store,
which is another origin, as the Hub's is. All that is asked is written down in `FakeHub.asked`.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_aSecretOfTheTests"
LARGE = (".pkl", ".pt", ".bin", ".safetensors", ".parquet", ".zip", ".npz", ".png")
RESOLVE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|refs)(?:/([^/]+))?)?(?:/.*)?")
Files = dict[str, bytes]


@dataclass
class Repo:
    """Files by commit; branches and tags by name."""

    commits: dict[str, Files]
    branches: dict[str, str]
    tags: dict[str, str] = field(default_factory=dict)
    gated: bool = False

    def commit(self, revision: str) -> str | None:
        found = {**self.branches, **self.tags}.get(revision, revision)
        return found if found in self.commits else None


@dataclass(frozen=True)
class Asked:
    server: str
    method: str
    path: str
    headers: dict[str, str]


class FakeHub:
    """Both servers; `with` closes them."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.asked: list[Asked] = []
        self.damaged: set[str] = set()
        """sha256 of files of which the store sends other bytes of the same length."""
        self.cuts: dict[str, int] = {}
        """sha256 → how many more answers break off after half of their bytes."""
        self.failing = 0
        """Status that the store answers with after a broken answer; 0: none."""
        self._servers = [_serve(self, "endpoint"), _serve(self, "store")]
        self.endpoint, self.store = (f"http://127.0.0.1:{server.server_address[1]}" for server in self._servers)

    def __enter__(self) -> FakeHub:
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def add(self, name: str, files: Files, kind: str = "model", **options: Any) -> str:
        """A repository of one commit on its branch `main`; the commit."""
        commit = commit_of(files)
        self.repos[kind, name] = Repo({commit: files}, {"main": commit}, **options)
        return commit

    def push(self, name: str, files: Files, kind: str = "model") -> str:
        """Another commit, to which `main` moves."""
        repo = self.repos[kind, name]
        commit = commit_of(files)
        repo.commits[commit] = files
        repo.branches["main"] = commit
        return commit

    def content(self, sha256: str) -> bytes | None:
        for repo in self.repos.values():
            for files in repo.commits.values():
                for data in files.values():
                    if hashlib.sha256(data).hexdigest() == sha256:
                        return data
        return None

    def downloads(self) -> list[str]:
        """What was fetched, in order: names at the endpoint, sha256 at the store."""
        return [unquote(asked.path).rsplit("/", 1)[-1] for asked in self.asked if is_download(asked)]


def is_download(asked: Asked) -> bool:
    return asked.method == "GET" and not asked.path.startswith("/api/")


def commit_of(files: Files) -> str:
    return hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()


def _serve(hub: FakeHub, name: str) -> ThreadingHTTPServer:
    class Handler(_Handler):
        fake, server_name = hub, name

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True).start()
    return server


class _Handler(BaseHTTPRequestHandler):
    fake: FakeHub
    server_name: str
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.fake.asked.append(Asked(self.server_name, self.command, self.path, dict(self.headers)))
        if self.server_name == "store":
            self.send_stored(path.removeprefix("/"))
        elif found := RESOLVE.fullmatch(path):
            self.resolve("dataset" if found[1] else "model", found[2], unquote(found[3]), unquote(found[4]))
        elif found := API.fullmatch(path):
            self.tell(found[1].removesuffix("s"), found[2], found[3], unquote(found[4] or "main"))
        else:
            self.refuse(404, "", "no such page")

    do_HEAD = do_GET

    def tell(self, kind: str, name: str, what: str | None, revision: str) -> None:
        repo = self.fake.repos.get((kind, name))
        if repo is None:
            return self.refuse(401, "RepoNotFound", "Invalid username or password.")
        if what == "refs":
            return self.send(json.dumps({"branches": _refs(repo.branches), "tags": _refs(repo.tags), "converts": []}))
        commit = repo.commit(revision)
        if commit is None:
            return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if what == "tree":
            return self.send(json.dumps(_tree(repo.commits[commit])))
        # Clients before 1.0 read the last four without asking whether they are there.
        siblings = [{"rfilename": path} for path in repo.commits[commit]]
        told = {"id": name, "sha": commit, "gated": repo.gated, "siblings": siblings, "tags": []}
        return self.send(json.dumps({**told, "private": False, "disabled": False, "downloads": 0, "likes": 0}))

    def resolve(self, kind: str, name: str, revision: str, path: str) -> None:
        repo = self.fake.repos.get((kind, name))
        if repo is None:
            return self.refuse(401, "RepoNotFound", "Invalid username or password.")
        if repo.gated:
            return self.refuse(403, "GatedRepo", f"Access to {name} is restricted.")
        commit = repo.commit(revision)
        if commit is None:
            return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        data = repo.commits[commit].get(path)
        if data is None:
            return self.refuse(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit})
        headers = {"X-Repo-Commit": commit}
        if not path.endswith(LARGE):
            return self.send(data, {**headers, "ETag": f'"{_blob(data)}"'})
        sha256 = hashlib.sha256(data).hexdigest()
        place = f"{self.fake.store}/{sha256}"
        linked = {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(data)), "Location": place}
        return self.send(b"", {**headers, **linked}, status=302)

    def send_stored(self, sha256: str) -> None:
        data = self.fake.content(sha256)
        if data is None:
            return self.refuse(404, "", "no such object")
        if sha256 in self.fake.damaged:
            data = bytes(byte ^ 1 for byte in data)
        start = int(found[1]) if (found := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))) else 0
        if self.fake.cuts.get(sha256, 0) > 0:
            self.fake.cuts[sha256] -= 1
            return self.break_off(data[start:])
        if self.fake.failing:
            return self.refuse(self.fake.failing, "", "the store is down")
        whole = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        return self.send(data[start:], {"ETag": f'"{sha256}"', **whole}, status=206 if start else 200)

    def break_off(self, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2])
        self.wfile.flush()
        self.close_connection = True

    def refuse(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        told = {"X-Error-Code": code} if code else {}
        self.send(json.dumps({"error": message}), {**told, "X-Error-Message": message, **(headers or {})}, status)

    def send(self, body: bytes | str, headers: dict[str, str] | None = None, status: int = 200) -> None:
        data = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        for key, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    log_message: Callable[..., None] = lambda *_: None


def _refs(named: dict[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "ref": f"refs/heads/{name}", "targetCommit": commit} for name, commit in named.items()]


def _tree(files: Files) -> list[dict[str, Any]]:
    folders = {path.rsplit("/", depth)[0] for path in files for depth in range(1, path.count("/") + 1)}
    entries: list[dict[str, Any]] = [
        {"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in folders
    ]
    for path, data in files.items():
        entry: dict[str, Any] = {"type": "file", "path": path, "oid": _blob(data), "size": len(data)}
        if path.endswith(LARGE):
            entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
        entries.append(entry)
    return sorted(entries, key=lambda entry: str(entry["path"]))


def _blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
