"""A dataset hub on loopback: what `huggingface_hub` and `datasets` ask of one, by HTTP, from files in memory."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_" + "a" * 34


@dataclass
class Repo:
    """revisions: of each name the files, path by content. gated: only the token TOKEN may read it."""

    revisions: Mapping[str, Mapping[str, bytes]]
    gated: bool = False
    asked: list[str] = field(default_factory=list)


class _RefusedError(Exception):
    def __init__(self, status: int, code: str, words: str) -> None:
        super().__init__(words)
        self.status, self.code = status, code


@contextmanager
def fake_hub(repos: Mapping[str, Repo]) -> Iterator[str]:
    """The URL of a hub that has these datasets, for HF_ENDPOINT."""
    handler = type("Handler", (_Handler,), {"repos": repos})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    repos: Mapping[str, Repo]

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        try:
            if match := re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                return self._file(*self._found(match[1], match[2]), match[3])
            if match := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
                return self._info(match[1], *self._found(match[1], match[2] or "main"))
            if match := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/tree/([^/]+)/?(.*)", path):
                return self._tree(self._found(match[1], match[2])[1], match[3])
            if match := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/paths-info/([^/]+)", path):
                return self._paths(self._found(match[1], match[2])[1], body)
            raise _RefusedError(404, "EntryNotFound", f"nothing at {path}")
        except _RefusedError as error:
            self._send(error.status, b"", {"X-Error-Code": error.code, "X-Error-Message": str(error)})

    def _found(self, name: str, revision: str) -> tuple[str, Mapping[str, bytes]]:
        """The commit and files of a revision."""
        repo = self.repos.get(name)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if repo is None:
            raise _RefusedError(404 if token else 401, "RepoNotFound", "Repository not found")
        repo.asked.append(f"{self.command} {self.path}")
        if repo.gated and token != TOKEN:
            raise _RefusedError(403 if token else 401, "GatedRepo", f"Access to dataset {name} is restricted")
        named = {each: files for key, files in repo.revisions.items() for each in (key, _commit(name, key))}
        if revision not in named:
            raise _RefusedError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        commit = revision if revision not in repo.revisions else _commit(name, revision)
        return commit, named[revision]

    def _file(self, commit: str, files: Mapping[str, bytes], path: str) -> None:
        headers = {"X-Repo-Commit": commit}
        if path not in files:
            self._send(404, b"", headers | {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})
            return
        content = files[path]
        headers |= {"ETag": f'"{_digest(content)}"', "Accept-Ranges": "bytes"}
        if part := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            start, end = int(part[1]), int(part[2] or len(content) - 1) + 1
            headers["Content-Range"] = f"bytes {start}-{min(end, len(content)) - 1}/{len(content)}"
            self._send(206, content[start:end], headers)
            return
        self._send(200, content, headers)

    def _info(self, name: str, commit: str, files: Mapping[str, bytes]) -> None:
        siblings = [{"rfilename": path} for path in files]
        self._json({"id": name, "sha": commit, "siblings": siblings, "private": False, "gated": False, "tags": []})

    def _tree(self, files: Mapping[str, bytes], below: str) -> None:
        recursive = "recursive=true" in self.path.lower()
        entries = [
            each
            for each in _entries(files)
            if not below or each["path"].startswith(f"{below}/")
            if recursive or "/" not in each["path"].removeprefix(f"{below}/" if below else "")
        ]
        if below and not entries:
            raise _RefusedError(404, "EntryNotFound", f"{below} does not exist")
        self._json(entries)

    def _paths(self, files: Mapping[str, bytes], body: bytes) -> None:
        asked = json.loads(body)["paths"]
        asked = [asked] if isinstance(asked, str) else asked
        self._json([each for each in _entries(files) if each["path"] in asked])

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


def _entries(files: Mapping[str, bytes]) -> list[dict[str, Any]]:
    commit = {"id": "0" * 40, "title": "", "date": "2026-01-01T00:00:00.000Z"}
    folders = {"/".join(path.split("/")[:at]) for path in files for at in range(1, path.count("/") + 1)}
    return [
        *({"type": "directory", "path": each, "oid": "0" * 40, "size": 0, "lastCommit": commit} for each in folders),
        *(
            {"type": "file", "path": path, "oid": _digest(content)[:40], "size": len(content), "lastCommit": commit}
            for path, content in files.items()
        ),
    ]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _commit(name: str, revision: str) -> str:
    return _digest(f"{name}@{revision}".encode())[:40]
