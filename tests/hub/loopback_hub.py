"""The part of the Hugging Face Hub that publishing and loading ask, on this machine's loopback interface."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_loopback"


@dataclass
class Repository:
    """Every commit is the content of all files by path; the last one is `main`."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes]) -> str:
        whole = {**(self.commits[self.head] if self.commits else {}), **files}
        sha = hashlib.sha1(f"{len(self.commits)}".encode()).hexdigest()
        self.commits[sha] = whole
        return sha

    @property
    def head(self) -> str:
        return list(self.commits)[-1]

    def revision(self, name: str) -> str | None:
        return self.head if name == "main" else name if name in self.commits else None


class LoopbackHub:
    """A Hub with no users: who has the token may do everything, and everybody may read."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.large_files: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.cut_uploads = False
        self.address = ""

    def answer(self, request: "_Request", method: str, path: str, body: bytes) -> None:
        """Send the answer of the first route that fits."""
        self.requests.append(f"{method} {path}")
        for allowed, pattern, route in _ROUTES:
            if method in allowed and (found := re.fullmatch(pattern, path)):
                if method in ("POST", "PUT") and not self._may_write(request, path):
                    request.send(401, {"error": "Invalid username or password."})
                else:
                    route(self, request, body, **{k: unquote(v) for k, v in found.groupdict().items() if v})
                return
        request.send(404, {"error": f"no route for {method} {path}"}, {"X-Error-Code": "RepoNotFound"})

    def create_with(self, repo: str, files: dict[str, bytes]) -> None:
        """Make a repository that holds files, without asking for it."""
        self.repositories[repo] = Repository()
        self.repositories[repo].commit(files)

    def _may_write(self, request: "_Request", path: str) -> bool:
        # As on the Hub, the address that a large file is sent to is itself the permission.
        return path.startswith("/upload/") or request.headers["Authorization"] == f"Bearer {TOKEN}"

    def create(self, request: "_Request", body: bytes) -> None:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.repositories:
            request.send(409, {"url": f"{self.address}/{name}"})
            return
        self.repositories[name] = Repository(private=asked.get("visibility") == "private")
        self.repositories[name].commit({".gitattributes": b"*.safetensors filter=lfs\n"})
        request.send(200, {"url": f"{self.address}/{name}"})

    def validate_yaml(self, request: "_Request", body: bytes) -> None:
        request.send(200, {"errors": [], "warnings": []})

    def preupload(self, request: "_Request", body: bytes, repo: str) -> None:
        files = [
            {
                "path": each["path"],
                "uploadMode": "lfs" if each["path"].endswith((".safetensors", ".onnx")) else "regular",
                "shouldIgnore": False,
            }
            for each in json.loads(body)["files"]
        ]
        request.send(200, {"files": files})

    def batch(self, request: "_Request", body: bytes, repo: str) -> None:
        objects = []
        for each in json.loads(body)["objects"]:
            upload = {"upload": {"href": f"{self.address}/upload/{each['oid']}"}}
            objects.append({**each, **({} if each["oid"] in self.large_files else {"actions": upload})})
        request.send(200, {"transfer": "basic", "objects": objects})

    def upload(self, request: "_Request", body: bytes, oid: str) -> None:
        if self.cut_uploads:
            request.send(403, {"error": "the line is cut"})
            return
        assert hashlib.sha256(body).hexdigest() == oid
        self.large_files[oid] = body
        request.send(200, {})

    def commit(self, request: "_Request", body: bytes, repo: str) -> None:
        files = {}
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.large_files[value["oid"]]
        sha = self.repositories[repo].commit(files)
        request.send(
            200, {"success": True, "commitOid": sha, "commitUrl": f"{self.address}/{repo}/commit/{sha}"}
        )

    def info(self, request: "_Request", body: bytes, repo: str, revision: str | None = None) -> None:
        found = self._find(request, repo, revision or "main")
        if found:
            files = [{"rfilename": path} for path in self.repositories[repo].commits[found]]
            private = self.repositories[repo].private
            request.send(200, {"id": repo, "sha": found, "private": private, "siblings": files})

    def tree(
        self, request: "_Request", body: bytes, repo: str, revision: str, folder: str | None = None
    ) -> None:
        found = self._find(request, repo, revision)
        if found and folder:
            # All files of these repositories lie at the top.
            request.send(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        elif found:
            files = self.repositories[repo].commits[found]
            listed = [
                {"type": "file", "path": path, "size": len(content), "oid": _etag(content)}
                for path, content in files.items()
            ]
            request.send(200, listed)

    def resolve(self, request: "_Request", body: bytes, repo: str, revision: str, path: str) -> None:
        found = self._find(request, repo, revision)
        if not found:
            return
        content = self.repositories[repo].commits[found].get(path)
        if content is None:
            headers = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": found}
            request.send(404, {"error": "Entry not found"}, headers)
            return
        headers = {"X-Repo-Commit": found, "ETag": f'"{_etag(content)}"', "X-Linked-Size": str(len(content))}
        request.send(200, content, headers)

    def _find(self, request: "_Request", repo: str, revision: str) -> str | None:
        """The commit of a revision; where there is none, the refusal is sent."""
        if repo not in self.repositories:
            request.send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        elif (found := self.repositories[repo].revision(revision)) is not None:
            return found
        else:
            request.send(404, {"error": "Revision not found"}, {"X-Error-Code": "RevisionNotFound"})
        return None


_REPO = r"(?P<repo>[^/]+/[^/]+)"
_ROUTES: list[tuple[str, str, Any]] = [
    ("POST", r"/api/repos/create", LoopbackHub.create),
    ("POST", r"/api/validate-yaml", LoopbackHub.validate_yaml),
    ("POST", rf"/api/models/{_REPO}/preupload/main", LoopbackHub.preupload),
    ("POST", rf"/{_REPO}\.git/info/lfs/objects/batch", LoopbackHub.batch),
    ("PUT", r"/upload/(?P<oid>\w+)", LoopbackHub.upload),
    ("POST", rf"/api/models/{_REPO}/commit/main", LoopbackHub.commit),
    ("GET", rf"/api/models/{_REPO}", LoopbackHub.info),
    ("GET", rf"/api/models/{_REPO}/revision/(?P<revision>[^/]+)", LoopbackHub.info),
    ("GET", rf"/api/models/{_REPO}/tree/(?P<revision>[^/]+)(?:/(?P<folder>.+))?", LoopbackHub.tree),
    ("GET HEAD", rf"/{_REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", LoopbackHub.resolve),
]


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: LoopbackHub

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.hub.answer(self, self.command, urlsplit(self.path).path, body)

    do_GET = do_HEAD = do_POST = do_PUT = _handle  # noqa: N815

    def send(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        payload = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(payload)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(payload)

    def log_message(self, *arguments: Any) -> None:
        """Keep stderr for what is tested."""


def _etag(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextmanager
def loopback_hub() -> Iterator[LoopbackHub]:
    """Serve a Hub on a free port as long as the context is open."""
    hub = LoopbackHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("_Bound", (_Request,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
