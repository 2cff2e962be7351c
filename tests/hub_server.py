"""A server on this machine that answers as the Hugging Face Hub does, as far as downloads need it."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar


class Hub(BaseHTTPRequestHandler):
    """The part of the Hub's API that a download needs."""

    commit = "a" * 40
    models: ClassVar[dict[str, dict[str, bytes]]] = {}
    refusals: ClassVar[dict[str, tuple[int, str]]] = {
        "no/such": (404, "RepoNotFound"),
        "some/private": (401, "RepoNotFound"),
        "some/gated": (403, "GatedRepo"),
    }

    def do_GET(self) -> None:
        self.answer()

    def do_HEAD(self) -> None:
        self.answer()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def answer(self) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        name = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
        listing = parts[0] == "api"
        if name in self.refusals and not (listing and name == "some/gated"):
            status, code = self.refusals[name]
            return self.send(status, b"", {"X-Error-Code": code})
        if "revision" in parts and parts[-1] == "v2":
            return self.send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        files = self.models.get(name, {"tokenizer.json": b""})
        if "tree" in parts:
            entries = [{"type": "file", "path": file, "size": len(files[file]), "oid": "b"} for file in files]
            return self.send(200, json.dumps(entries).encode(), {"Content-Type": "application/json"})
        if listing:
            entries = [{"rfilename": file} for file in files]
            return self.send(200, json.dumps({"id": name, "sha": self.commit, "siblings": entries}).encode())
        return self.send(200, files[parts[-1]], {"ETag": f'"{name}"', "X-Repo-Commit": self.commit})

    def send(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(data))} | (headers or {})).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)


@contextlib.contextmanager
def serving(models: Mapping[str, Mapping[str, bytes]]) -> Iterator[str]:
    """The address of a server with these models: name -> file -> content."""

    class Own(Hub):
        pass

    Own.models = {name: dict(files) for name, files in models.items()}
    with ThreadingHTTPServer(("127.0.0.1", 0), Own) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def reaching(hub: str, cache: Path) -> dict[str, str]:
    """The environment of a process that uses this server as the Hub, and a cache of its own."""
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    return environment | {
        "HF_HUB_CACHE": str(cache),
        "HF_ENDPOINT": hub,
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
