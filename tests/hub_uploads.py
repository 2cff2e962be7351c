"""A server on this machine that takes uploads as the Hugging Face Hub does, and keeps them in memory.

It has the calls of the Hub's API that huggingface_hub makes to create a repository, upload files by the
protocol of Git LFS, commit and branch. What it keeps can be read without huggingface_hub.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKENS = {"writes": "write", "reads": "read", "elsewhere": "write"}
"""Tokens that are valid, and their roles. The last one may not write to anything."""
ATTRIBUTES = b"*.safetensors filter=lfs\nspiece.model filter=lfs\n"
LARGE = (".safetensors", ".model")


@dataclass
class Repository:
    """Commits, each with its files, and branches."""

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        name = hashlib.sha1(f"{len(self.commits)}{sorted(files)}".encode()).hexdigest()
        self.commits[name], self.branches[branch] = files, name
        return name

    def files(self, branch: str = "main") -> dict[str, bytes]:
        return self.commits[self.branches[branch]]


@dataclass
class Hub:
    """What the server has, and what was asked of it.

    Attributes:
      repositories: by name.
      objects: large files by their hash; they are there before they are committed.
      requests: method and path of each request.
      uploads: bytes of each large file that was uploaded.
      room: large files that are taken; then the server fails.
      doubts: what the server thinks of a model card.
      broken: a request that the server fails at.
    """

    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    uploads: list[int] = field(default_factory=list)
    room: int | None = None
    doubts: list[str] = field(default_factory=list)
    broken: str = ""
    address: str = ""


class Handler(BaseHTTPRequestHandler):
    """Answers one request; `hub` is set by :func:`taking_uploads`."""

    hub: Hub

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def do_PUT(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = self.path.partition("?")[0]
        self.hub.requests.append(f"{self.command} {path}")
        length = self.headers.get("Content-Length")
        body = self.rfile.read(int(length)) if length else self.chunks()
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in TOKENS and self.command != "PUT":
            return self.send(401, {"error": "Invalid username or password."})
        if self.hub.broken and self.hub.broken in self.hub.requests[-1]:
            return self.send(501, {"error": "broken"})
        for pattern, method in CALLS.items():
            if found := re.fullmatch(pattern, f"{self.command} {path}"):
                return getattr(self, method)(body, *found.groups())
        return self.send(500, {"error": f"not answered: {self.command} {path}"})

    def chunks(self) -> bytes:
        """The body of a request that comes in pieces."""
        parts = []
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
        return b"".join(parts)

    def send(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for key, text in ({"Content-Length": str(len(data))} | (headers or {})).items():
            self.send_header(key, text)
        self.end_headers()
        self.wfile.write(data)

    def repository(self, name: str) -> Repository | None:
        found = self.hub.repositories.get(name)
        if found is None:
            self.send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        return found

    def whoami(self, body: bytes) -> None:
        token = self.headers["Authorization"].removeprefix("Bearer ")
        self.send(200, {"name": "ola", "type": "user", "auth": {"accessToken": {"role": TOKENS[token]}}})

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        name = f"{asked['organization'] or 'ola'}/{asked['name']}"
        if "elsewhere" in self.headers["Authorization"]:
            return self.send(403, {"error": f"You don't have the rights to create a model under {name}"})
        if name in self.hub.repositories:
            return self.send(409, {"error": "You already created this model repo"})
        private = asked.get("private", asked.get("visibility") == "private")
        made = self.hub.repositories[name] = Repository(private)
        made.commit("main", {".gitattributes": ATTRIBUTES})
        return self.send(200, {"url": f"{self.hub.address}/{name}", "name": name})

    def info(self, body: bytes, name: str, revision: str | None = None) -> None:
        if found := self.repository(name):
            branch = revision or "main"
            if branch not in found.branches:
                return self.send(404, {"error": "no"}, {"X-Error-Code": "RevisionNotFound"})
            files = [{"rfilename": file} for file in found.files(branch)]
            self.send(
                200,
                {"id": name, "sha": found.branches[branch], "private": found.private, "siblings": files},
            )
        return None

    def commits(self, body: bytes, name: str, branch: str) -> None:
        if found := self.repository(name):
            listed = [
                {"id": one, "authors": [], "date": "2026-01-01T00:00:00.000Z", "title": "", "message": ""}
                for one in found.commits
            ]
            self.send(200, listed[::-1])

    def branch(self, body: bytes, name: str, branch: str) -> None:
        if found := self.repository(name):
            if branch in found.branches:
                return self.send(409, {"error": "Reference already exists"})
            start = json.loads(body).get("startingPoint", "main")
            found.branches[branch] = found.branches.get(start, start)
            self.send(200, {})
        return None

    def card(self, body: bytes) -> None:
        self.send(200, {"errors": [], "warnings": [{"message": one} for one in self.hub.doubts]})

    def preupload(self, body: bytes, name: str, branch: str) -> None:
        if found := self.repository(name):
            files = [
                {
                    "path": one["path"],
                    "uploadMode": "lfs" if one["path"].endswith(LARGE) else "regular",
                    "shouldIgnore": False,
                    "oid": self.oid(one["path"], found.files(branch).get(one["path"])),
                }
                for one in json.loads(body)["files"]
            ]
            self.send(200, {"files": files})

    @staticmethod
    def oid(name: str, data: bytes | None) -> str | None:
        if data is None:
            return None
        if name.endswith(LARGE):
            return hashlib.sha256(data).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    def batch(self, body: bytes, name: str) -> None:
        objects = []
        for one in json.loads(body)["objects"]:
            entry = {"oid": one["oid"], "size": one["size"]}
            if one["oid"] not in self.hub.objects:
                place = f"{self.hub.address}/store/{one['oid']}"
                entry["actions"] = {"upload": {"href": place}, "verify": {"href": f"{place}/verify"}}
            objects.append(entry)
        self.send(200, {"transfer": "basic", "objects": objects})

    def put(self, body: bytes, oid: str) -> None:
        if self.hub.room is not None and self.hub.room <= len(self.hub.uploads):
            return self.send(507, {"error": "no room"})
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.objects[oid] = body
        self.hub.uploads.append(len(body))
        return self.send(200, b"")

    def verify(self, body: bytes, oid: str) -> None:
        self.send(200 if len(self.hub.objects[oid]) == json.loads(body)["size"] else 422, {})

    def commit(self, body: bytes, name: str, branch: str) -> None:
        if found := self.repository(name):
            files = dict(found.files(branch))
            for line in body.splitlines():
                kind, value = json.loads(line)["key"], json.loads(line)["value"]
                if kind == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif kind == "lfsFile":
                    files[value["path"]] = self.hub.objects[value["oid"]]
                elif kind == "deletedFile":
                    del files[value["path"]]
            made = found.commit(branch, files)
            self.send(200, {"commitUrl": f"{self.hub.address}/{name}/commit/{made}", "commitOid": made})


_NAME = r"([^/]+/[^/]+)"
CALLS = {
    r"GET /api/whoami-v2": "whoami",
    r"POST /api/repos/create": "create",
    r"POST /api/validate-yaml": "card",
    rf"GET /api/models/{_NAME}": "info",
    rf"GET /api/models/{_NAME}/revision/([^/]+)": "info",
    rf"GET /api/models/{_NAME}/commits/([^/]+)": "commits",
    rf"POST /api/models/{_NAME}/branch/([^/]+)": "branch",
    rf"POST /api/models/{_NAME}/preupload/([^/]+)": "preupload",
    rf"POST /api/models/{_NAME}/commit/([^/]+)": "commit",
    rf"POST /{_NAME}\.git/info/lfs/objects/batch": "batch",
    r"PUT /store/([0-9a-f]{64})": "put",
    r"POST /store/([0-9a-f]{64})/verify": "verify",
}


@contextlib.contextmanager
def taking_uploads() -> Iterator[Hub]:
    """A server that begins empty."""

    class Own(Handler):
        hub = Hub()

    with ThreadingHTTPServer(("127.0.0.1", 0), Own) as server:
        Own.hub.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield Own.hub
        finally:
            server.shutdown()
            thread.join()
