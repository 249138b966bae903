"""A Hugging Face Hub of one process: repositories in memory, its metadata, redirects, ranges, and its accidents."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlparse

import pytest

CHUNK = 200  # bytes; what has arrived of the next chunk is lost when a connection breaks
COMMIT = "c0ffee" + "0" * 34


class LocalHub:
    """What the server holds and what it was asked.

    Attributes:
        repositories: API path (`datasets/owner/name`, `models/owner/name`) → file name → content.
        requests: method, path and Range header of every request so far.
        cut: file name → bytes after which answers with its content end, and how often that happens.
        corrupt: names of files of which the last byte is served wrong.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self.cut: dict[str, tuple[int, int]] = {}
        self.corrupt: set[str] = set()
        self.endpoint = self.storage = ""

    def downloads(self, name: str) -> list[str | None]:
        """The Range headers with which the content of a file was asked for."""
        return [sent for method, path, sent in self.requests if method == "GET" and path == f"/content/{name}"]

    def description(self, repository: str) -> dict[str, Any]:
        files = self.repositories[repository].items()
        siblings = [{"rfilename": name, "size": len(content), **blob(name, content)} for name, content in files]
        return {"id": repository.partition("/")[2], "sha": COMMIT, "siblings": siblings}

    def tree(self, repository: str) -> list[dict[str, Any]]:
        entries = []
        for name, content in self.repositories[repository].items():
            about = blob(name, content)
            entry: dict[str, Any] = {"type": "file", "path": name, "size": len(content), "oid": about["blobId"]}
            if "lfs" in about:
                entry["lfs"] = {"oid": about["lfs"]["sha256"], "size": len(content), "pointerSize": 130}
            entries.append(entry)
        return entries


def is_large(name: str) -> bool:
    return name.endswith((".tar.gz", ".safetensors", ".bin"))


def blob(name: str, content: bytes) -> dict[str, Any]:
    about: dict[str, Any] = {"blobId": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()}
    if is_large(name):
        about["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    return about


def handler_of(hub: LocalHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *arguments: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            path = urlparse(self.path).path
            hub.requests.append((self.command, path, self.headers.get("Range")))
            parts = path.strip("/").split("/")
            if parts[0] == "api":
                self.describe("/".join(parts[1:4]), parts[4:])
            elif parts[0] == "content":
                self.serve(parts[1], next(files[parts[1]] for files in hub.repositories.values() if parts[1] in files))
            else:
                kind = "datasets" if parts[0] == "datasets" else "models"
                parts = parts[1:] if kind == "datasets" else parts
                self.resolve(f"{kind}/{parts[0]}/{parts[1]}", "/".join(parts[4:]))

        def describe(self, repository: str, rest: list[str]) -> None:
            if repository not in hub.repositories:
                self.reply(404, headers={"X-Error-Code": "RepoNotFound"})
            elif rest[:1] == ["revision"] and rest[1] not in (COMMIT, "main"):
                self.reply(404, headers={"X-Error-Code": "RevisionNotFound"})
            else:
                known = hub.tree(repository) if rest[:1] == ["tree"] else hub.description(repository)
                self.reply(200, json.dumps(known).encode(), {"Content-Type": "application/json"})

        def resolve(self, repository: str, name: str) -> None:
            content = hub.repositories[repository][name]
            about = blob(name, content)
            headers = {"X-Repo-Commit": COMMIT, "X-Linked-Size": str(len(content))}
            if "lfs" in about:
                linked = {"X-Linked-ETag": f'"{about["lfs"]["sha256"]}"', "Location": f"{hub.storage}/content/{name}"}
                self.reply(302, headers={**headers, **linked})
            else:
                self.reply(200, content, {**headers, "ETag": f'"{about["blobId"]}"'})

        def serve(self, name: str, content: bytes) -> None:
            if name in hub.corrupt:
                content = content[:-1] + bytes([content[-1] ^ 1])
            start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
            length = len(content) - start
            headers = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
            after, times = hub.cut.get(name, (0, 0))
            if times:
                hub.cut[name] = after, times - 1
                self.reply(206 if start else 200, content[start : start + after], headers, length=length)
                self.close_connection = True
            else:
                self.reply(206 if start else 200, content[start:], headers)

        def reply(
            self, status: int, body: bytes = b"", headers: dict[str, str] | None = None, length: int | None = None
        ) -> None:
            self.send_response(status)
            for key, value in {"Content-Length": str(length or len(body)), **(headers or {})}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

    return Handler


@contextmanager
def serving() -> Iterator[LocalHub]:
    """A hub at `http://127.0.0.1:<port>` for as long as the block lasts."""
    hub = LocalHub()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler_of(hub)) as server:
        server.daemon_threads = True
        port = server.server_address[1]
        hub.endpoint, hub.storage = f"http://127.0.0.1:{port}", f"http://localhost:{port}"  # two hosts to a client
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


def point_library_at(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `HF_ENDPOINT` does, for the library that this process has imported already."""
    from huggingface_hub import constants

    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", CHUNK)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
