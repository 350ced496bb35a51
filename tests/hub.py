"""A Hugging Face Hub on this machine: serves folders over HTTP, as far as downloading a model needs it."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass(frozen=True)
class Refusal:
    """What the hub says instead of a file."""

    #: 0: it hangs up.
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def serving(repos: dict[str, Path], asked: list[str], refused: Mapping[str, Refusal] | None = None) -> Iterator[str]:
    """Serve `repos` (owner/name -> folder); give the address for HF_ENDPOINT. What is fetched is noted in `asked`.

    Args:
        refused: repos that are not served, and what is said instead.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self, *, with_body: bool) -> None:
            path = unquote(urlsplit(self.path).path).lstrip("/")
            for repo, refusal in (refused or {}).items():
                if repo in path:
                    return self._refuse(refusal)
            for repo, folder in repos.items():
                if path.startswith(f"api/models/{repo}/tree/"):
                    return self._send(json.dumps(_tree(folder)).encode(), with_body=with_body)
                if path.startswith(f"api/models/{repo}"):
                    return self._send(json.dumps(_info(repo, folder)).encode(), with_body=with_body)
                if path.startswith(f"{repo}/resolve/"):
                    file = folder / path.removeprefix(f"{repo}/resolve/").partition("/")[2]
                    if file.is_file():
                        if with_body:
                            asked.append(str(file.relative_to(folder)))
                        return self._send(file.read_bytes(), with_body=with_body)
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None

        def _refuse(self, refusal: Refusal) -> None:
            if not refusal.status:
                self.close_connection = True
                return
            self.send_response(refusal.status)
            for name, value in {**refusal.headers, "Content-Length": "0"}.items():
                self.send_header(name, value)
            self.end_headers()

        def _send(self, data: bytes, *, with_body: bool) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.end_headers()
            if with_body:
                self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _tree(folder: Path) -> list[dict[str, object]]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return [
        {"type": "file", "path": str(file.relative_to(folder)), "size": file.stat().st_size, "oid": "0" * 40}
        for file in files
    ]


def _info(repo: str, folder: Path) -> dict[str, object]:
    files = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    return {"id": repo, "sha": COMMIT, "tags": [], "siblings": [{"rfilename": name} for name in files]}
