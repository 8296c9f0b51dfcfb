"""A server that speaks the hub's protocol over a folder: `python fake_hub.py FOLDER LOG`; prints its port.

`FOLDER/organisation/name/COMMIT/` holds the files of a data set; one that holds `GATED` asks for permission.
"""

import json
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlparse


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder: Path
    log: Path

    def do_GET(self):
        path = unquote(urlparse(self.path).path)
        with self.log.open("a") as file:
            file.write(f"{self.command} {path}\n")
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length).decode()
        if found := re.fullmatch(
            r"/api/datasets/([\w.-]+/[\w.-]+)(?:/(revision|tree|paths-info)/(\w+)(?:/(.*))?)?", path
        ):
            self._describe(*found.groups(), body)
        elif found := re.fullmatch(r"/datasets/([\w.-]+/[\w.-]+)/resolve/(\w+)/(.+)", path):
            self._file(*found.groups())
        else:
            self._answer(404, b"{}")

    do_HEAD = do_POST = do_GET

    def _describe(self, name, what, revision, below, body):
        top = self.folder / name
        commits = sorted(path.name for path in top.iterdir()) if top.is_dir() else []
        if not commits:
            return self._answer(404, b'{"error": "no"}', {"X-Error-Code": "RepoNotFound"})
        revision = revision if revision in commits else None if what else commits[0]
        if revision is None:
            return self._answer(404, b'{"error": "no"}', {"X-Error-Code": "RevisionNotFound"})
        place = top / revision
        if (place / "GATED").exists():
            headers = {"X-Error-Code": "GatedRepo", "X-Error-Message": f"Access to dataset {name} is restricted."}
            return self._answer(403, b"{}", headers)
        files = [path for path in sorted(place.rglob("*")) if below in (None, "") or path.is_relative_to(place / below)]
        if what in ("tree", "paths-info"):
            wanted = parse_qs(body).get("paths") or (json.loads(body).get("paths") if body[:1] == "{" else None)
            found = [self._entry(path, place) for path in files]
            found = [entry for entry in found if wanted is None or entry["path"] in wanted]
            if not found and below:
                return self._answer(404, b"[]", {"X-Error-Code": "EntryNotFound"})
            return self._answer(200, json.dumps(found).encode())
        siblings = [{"rfilename": path.relative_to(place).as_posix()} for path in files if path.is_file()]
        facts = {"id": name, "sha": revision, "siblings": siblings, "private": False, "gated": False, "tags": []}
        return self._answer(200, json.dumps(facts).encode())

    def _entry(self, path, place):
        kind = "file" if path.is_file() else "directory"
        return {"type": kind, "path": path.relative_to(place).as_posix(), "size": path.stat().st_size, "oid": "0" * 40}

    def _file(self, name, revision, path):
        file = self.folder / name / revision / path
        if not file.is_file():
            return self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
        content = file.read_bytes()
        headers = {"ETag": f'"{hash(content)}"', "X-Repo-Commit": revision, "Accept-Ranges": "bytes"}
        if part := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, stop = int(part[1]), min(int(part[2] or len(content) - 1), len(content) - 1)
            headers["Content-Range"] = f"bytes {start}-{stop}/{len(content)}"
            return self._answer(206, content[start : stop + 1], headers)
        return self._answer(200, content, headers)

    def _answer(self, status, content, headers=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *arguments):
        pass


if __name__ == "__main__":
    Handler.folder, Handler.log = map(Path, sys.argv[1:])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
