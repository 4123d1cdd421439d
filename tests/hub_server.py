"""A Hugging Face Hub in a thread on loopback, as far as the real client asks: create, upload, list, download.

Repositories live in memory. Every request is recorded, so that a test can say what was sent and what was not.
"""

import base64
import contextlib
import dataclasses
import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

API = re.compile(
    r"^/api/(?P<kind>models|datasets)/(?P<repo>[^/]+/[^/]+)"
    r"(?:/(?P<verb>revision|tree|preupload|commit|paths-info|xet-write-token)(?:/(?P<revision>[^/]+))?(?P<rest>/.*)?)?$"
)
FILE = re.compile(
    r"^/(?P<kind>datasets/)?(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)$",
)


@dataclasses.dataclass
class Repository:
    """One repository: its files at each commit, the newest last."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = dataclasses.field(default_factory=dict)

    def commit(self, files: dict[str, bytes]) -> str:
        """Add a commit and return its id."""
        digest = hashlib.sha1(str(len(self.commits)).encode())
        for path in sorted(files):
            digest.update(path.encode() + files[path])
        self.commits[digest.hexdigest()] = files
        return digest.hexdigest()

    def resolve(self, revision: str) -> str | None:
        """Return the commit that a branch name or commit id stands for."""
        return (
            list(self.commits)[-1] if revision == "main" else revision if revision in self.commits else None
        )


class HubServer:
    """The server's address, repositories and the requests that it has seen."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.requests: list[str] = []
        self.url = ""

    def add(self, repo_id: str, files: dict[str, bytes], kind: str = "models") -> None:
        """Put a repository there without a client."""
        self.repositories[kind, repo_id] = Repository()
        self.repositories[kind, repo_id].commit(files)

    def files(self, repo_id: str, kind: str = "models") -> dict[str, bytes]:
        """Return the files of a repository's newest commit."""
        repository = self.repositories[kind, repo_id]
        return repository.commits[list(repository.commits)[-1]]

    def environment(self, home: Path) -> dict[str, str]:
        """Return the environment of a subprocess whose Hub is this server and whose cache is `home`."""
        return {
            **os.environ,
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_TOKEN": "hf_test",
            "HF_HUB_OFFLINE": "0",
            "HF_DATASETS_OFFLINE": "0",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer

    def log_message(self, format: str, *args: object) -> None:
        """Keep standard error clean."""

    def do_GET(self) -> None:  # noqa: N802
        self._answer_get()

    def do_HEAD(self) -> None:  # noqa: N802
        self._answer_get()

    def do_POST(self) -> None:  # noqa: N802
        path = self._record()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if path == "/api/validate-yaml":
            self._send_json({"errors": [], "warnings": []})
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif (match := API.match(path)) and (repository := self._find(match)):
            if match["verb"] == "preupload":
                files = [file["path"] for file in json.loads(body)["files"]]
                modes = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in files]
                self._send_json({"files": modes})
            elif match["verb"] == "commit":
                self._commit(match["repo"], repository, body)
            elif match["verb"] == "paths-info":
                wanted = json.loads(body)["paths"]
                self._send_json([row for row in self._tree(repository, match) if row["path"] in wanted])
            else:
                self._refuse(404, "EntryNotFound")
        else:
            self._refuse(404, "RepoNotFound")

    def _answer_get(self) -> None:
        path = self._record()
        if match := API.match(path):
            repository = self._find(match)
            sha = repository and repository.resolve(match["revision"] or "main")
            if repository is None:
                self._refuse(404, "RepoNotFound")
            elif sha is None:
                self._refuse(404, "RevisionNotFound")
            elif match["verb"] == "tree":
                self._send_json(self._tree(repository, match))
            else:
                siblings = [{"rfilename": name} for name in repository.commits[sha]]
                self._send_json({"id": match["repo"], "sha": sha, "siblings": siblings, "tags": []})
        elif match := FILE.match(path):
            self._send_file(match)
        elif path == "/api/whoami-v2":
            self._send_json({"name": "tester", "type": "user", "orgs": [], "auth": {}})
        else:
            self._refuse(404, "RepoNotFound")

    def _record(self) -> str:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        return path

    def _find(self, match: re.Match[str]) -> Repository | None:
        kind = "datasets" if (match["kind"] or "").startswith("datasets") else "models"
        return self.hub.repositories.get((kind, match["repo"]))

    def _tree(self, repository: Repository, match: re.Match[str]) -> list[dict[str, object]]:
        files = repository.commits[repository.resolve(match["revision"] or "main") or ""]
        return [
            {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
            for name, content in files.items()
        ]

    def _create(self, wish: dict[str, object]) -> None:
        if self.headers.get("Authorization") != "Bearer hf_test":
            self._refuse(401, "")
            return
        repo_id = f"{wish.get('organization') or 'tester'}/{wish['name']}"
        key = (f"{wish.get('type') or 'model'}s", repo_id)
        status = 409 if key in self.hub.repositories else 200
        if status == 200:
            repository = Repository(private=bool(wish.get("private")) or wish.get("visibility") == "private")
            repository.commit({})
            self.hub.repositories[key] = repository
        self._send_json({"url": f"{self.hub.url}/{repo_id}", "id": repo_id, "name": repo_id}, status)

    def _commit(self, repo_id: str, repository: Repository, body: bytes) -> None:
        files = dict(repository.commits[list(repository.commits)[-1]])
        for line in body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            elif entry["key"] == "deletedFile":
                files.pop(entry["value"]["path"], None)
        sha = repository.commit(files)
        self._send_json(
            {"commitUrl": f"{self.hub.url}/{repo_id}/commit/{sha}", "commitOid": sha, "success": True}
        )

    def _send_file(self, match: re.Match[str]) -> None:
        repository = self._find(match)
        sha = repository and repository.resolve(match["revision"])
        content = repository.commits[sha].get(match["path"]) if repository and sha else None
        if repository is None:
            self._refuse(404, "RepoNotFound")
        elif sha is None:
            self._refuse(404, "RevisionNotFound")
        elif content is None:
            self._refuse(404, "EntryNotFound", {"X-Repo-Commit": sha})
        else:
            tag = f'"{hashlib.sha1(content).hexdigest()}"'
            self._send(200, content, {"ETag": tag, "X-Repo-Commit": sha, "Accept-Ranges": "bytes"})

    def _refuse(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        self._send(status, b"{}", {**(headers or {}), "X-Error-Code": code, "X-Error-Message": code})

    def _send_json(self, content: object, status: int = 200) -> None:
        self._send(status, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@contextlib.contextmanager
def serve_hub() -> Iterator[HubServer]:
    """Run a Hub on a free port of the loopback interface until the block ends."""
    hub = HubServer()
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
