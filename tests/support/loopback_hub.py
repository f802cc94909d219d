"""A hub on the loopback, with real paths, headers and hashes, and faults that a test scripts.

`hub.faults[path] = [fault, ...]`: what happens to successive requests for a file's bytes (or for "api"); then none.
Faults: ("drop", n) closes after n bytes; ("hang", s) sends nothing for s seconds; ("slow", s) waits s before each MB;
("flip", n) turns a bit of byte n; ("long", n) sends n bytes more; ("short", n) n fewer, with that length;
("whole",) ignores a range; ("range", n) answers another range; ("etag",) has another ETag, hence the whole file;
("status", code, headers).
"""

import hashlib
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

LARGE = 1000  # bytes from which a file is in LFS
MEGABYTE = 2**20


class LoopbackHub:
    """Repositories as {name: {path: bytes}}; `datasets/...` are data sets."""

    def __init__(self, repositories: dict[str, dict[str, bytes]], commit: str = "a" * 40, page: int = 1000) -> None:
        self.repositories, self.commit, self.page = repositories, commit, page
        self.faults: dict[str, list[tuple]] = {}
        self.gated: set[str] = set()
        self.elsewhere: str | None = None  # LFS files are redirected to this server
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.sent = 0  # bytes of files
        self._hashes: dict[
            int, tuple[str, str, bytes]
        ] = {}  # by identity, which the bytes kept beside them make unique
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def entry(self, path: str, data: bytes) -> dict:
        """What the tree says of a file."""
        # hashed once: a second each time, and the client's time would be the server's
        if id(data) not in self._hashes:
            blob = hashlib.sha1(b"blob %d\0" % len(data))
            blob.update(data)
            self._hashes[id(data)] = (blob.hexdigest(), hashlib.sha256(data).hexdigest(), data)
        plain, large, _ = self._hashes[id(data)]
        entry = {"type": "file", "oid": plain, "size": len(data), "path": path}
        return entry | ({"lfs": {"oid": large, "size": len(data), "pointerSize": 130}} if len(data) >= LARGE else {})

    def digest(self, data: bytes) -> str:
        """SHA-256 of a large file, git's SHA-1 of a small one."""
        entry = self.entry("", data)
        return entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def asked(self, path: str) -> list[dict[str, str]]:
        """Headers of the requests for a path."""
        return [headers for where, headers in self.requests if where.endswith(path)]

    def fault(self, key: str) -> tuple:
        left = self.faults.get(key)
        return left.pop(0) if left else ("none",)


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((path, dict(self.headers)))
        try:
            if api := re.fullmatch(r"/api/(model|dataset)s/(.+?)/(revision|tree)/([^/]+)", path):
                self._api(*api.groups())
            elif file := re.fullmatch(r"/((?:datasets/)?[^/]+/[^/]+)/resolve/([0-9a-f]{40})/(.+)", path):
                self._bytes(*file.groups())
            else:
                self._say(404, b"", {"X-Error-Code": "RepoNotFound"})
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_HEAD = do_GET

    def _api(self, kind: str, repo: str, what: str, revision: str) -> None:
        name = f"datasets/{repo}" if kind == "dataset" else repo
        fault = self.hub.fault("api")
        if fault[0] == "status":
            return self._say(fault[1], b"", fault[2] if len(fault) > 2 else {})
        if name not in self.hub.repositories:
            return self._say(401, b"", {"X-Error-Code": "RepoNotFound"})
        if revision not in ("main", self.hub.commit):
            return self._say(404, b"", {"X-Error-Code": "RevisionNotFound"})
        files = sorted(self.hub.repositories[name].items())
        if what == "revision":
            card = {"license": "mit"} if "README.md" in dict(files) else {}
            about = {"id": repo, "sha": self.hub.commit, "gated": name in self.hub.gated and "auto", "cardData": card}
            about["siblings"] = [{"rfilename": path} for path, _ in files]
            return self._say(200, json.dumps(about).encode())
        start = int(re.search(r"cursor=(\d+)", self.path)[1]) if "cursor=" in self.path else 0
        entries = [self.hub.entry(path, data) for path, data in files[start : start + self.hub.page]]
        more = {}
        if start + self.hub.page < len(files):
            place = urlsplit(self.path).path
            more = {"Link": f'<{self.hub.url}{place}?recursive=true&cursor={start + self.hub.page}>; rel="next"'}
        return self._say(200, json.dumps(entries).encode(), more)

    def _bytes(self, name: str, commit: str, path: str) -> None:
        data = self.hub.repositories.get(name, {}).get(path)
        if name in self.hub.gated:
            return self._say(403, b"", {"X-Error-Code": "GatedRepo"})
        if data is None or commit != self.hub.commit:
            return self._say(404, b"", {"X-Error-Code": "EntryNotFound" if data is None else "RevisionNotFound"})
        own = {"X-Repo-Commit": commit, "X-Linked-Size": str(len(data)), "X-Linked-ETag": f'"{self.hub.digest(data)}"'}
        if self.hub.elsewhere and len(data) >= LARGE:
            return self._say(302, b"", own | {"Location": f"{self.hub.elsewhere}{self.path}"})
        fault = self.hub.fault(path) if self.command == "GET" else ("none",)
        if fault[0] == "status":
            return self._say(fault[1], b"", fault[2] if len(fault) > 2 else {})
        if fault[0] == "hang":
            time.sleep(fault[1])
        etag = '"other"' if fault[0] == "etag" else f'"{self.hub.digest(data)}"'
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        first = int(start[1]) if start and self.headers.get("If-Range", etag) == etag and fault[0] != "whole" else None
        own |= {"ETag": etag, "Accept-Ranges": "bytes"}
        if first is not None and first >= len(data):
            return self._say(416, b"", own)
        if first is not None:
            shown = first + (fault[1] if fault[0] == "range" else 0)
            own["Content-Range"] = f"bytes {shown}-{len(data) - 1}/{len(data)}"
        return self._say(200 if first is None else 206, _spoilt(data, fault)[first or 0 :], own, fault)

    def _say(self, status: int, body: bytes, headers: dict[str, str] | None = None, fault: tuple = ("none",)) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        end = fault[1] if fault[0] == "drop" else len(body)
        for begin in range(0, min(end, len(body)), MEGABYTE):
            if fault[0] == "slow":
                time.sleep(fault[1])
            block = body[begin : min(begin + MEGABYTE, end)]
            self.wfile.write(block)
            if status in (200, 206) and "/resolve/" in self.path:
                self.hub.sent += len(block)
        if fault[0] == "drop":
            self.close_connection = True


def _spoilt(data: bytes, fault: tuple) -> bytes:
    if fault[0] == "flip":
        at = fault[1] % len(data)
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    if fault[0] == "long":
        return data + b"x" * fault[1]
    if fault[0] == "short":
        return data[: -fault[1]]
    return data
