"""A Hugging Face hub small enough to run beside a test: one model repository, in memory, over HTTP on loopback.

It speaks as much of the hub's protocol as huggingface_hub needs to create a repository, commit a folder, list and move
tags, and download a commit. Every request is written down. It checks no token.
"""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse

NAME = "org/mine"
API = f"/api/models/{NAME}"


class SmallHub:
    """`url` to give as HF_ENDPOINT; `commits` (id -> files), `tags` and `requests` to look at.

    `untaggable`: commits that no tag may name.
    """

    def __init__(self):
        self.commits, self.tags, self.requests, self.head = {}, {}, [], None
        self.untaggable = set()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def commit(self, lines):
        """The id of a new commit with what the lines of a commit request add and delete."""
        files = dict(self.commits.get(self.head, {}))
        for line in lines:
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "deletedFile":
                files.pop(line["value"]["path"], None)
        said = json.dumps({name: hashlib.sha1(content).hexdigest() for name, content in sorted(files.items())})
        self.head = hashlib.sha1(f"{self.head}{said}".encode()).hexdigest()
        self.commits[self.head] = files
        return self.head

    def resolve(self, revision):
        return self.head if revision == "main" else self.tags.get(revision, revision)


def _handler(hub):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def _answer(self, code, content=None, *, body=None, **headers):
            body = json.dumps(content if content is not None else {}).encode() if body is None else body
            self.send_response(code)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def _any(self):
            path = unquote(urlparse(self.path).path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            hub.requests.append(f"{self.command} {path}")
            missing = {"X_Error_Code": "RepoNotFound", "X_Error_Message": "Repository not found"}
            if self.command == "POST" and path == "/api/repos/create":
                if hub.head is None:
                    hub.commit([{"key": "file", "value": {"path": ".gitattributes", "content": ""}}])
                return self._answer(200, {"url": f"{hub.url}/{NAME}"})
            if hub.head is None:
                return self._answer(404, {"error": "Repository not found"}, **missing)
            if path.startswith(f"{API}/"):
                return self._api(path.removeprefix(f"{API}/"), body)
            if path == API:
                return self._info(hub.head)
            if path.startswith(f"/{NAME}/resolve/"):
                return self._file(*path.removeprefix(f"/{NAME}/resolve/").split("/", 1))
            return self._answer(404, {"error": f"no {path}"})

        def _api(self, rest, body):
            kind, _, name = rest.partition("/")
            if kind == "refs":
                tags = [{"name": n, "ref": f"refs/tags/{n}", "targetCommit": c} for n, c in hub.tags.items()]
                main = {"name": "main", "ref": "refs/heads/main", "targetCommit": hub.head}
                return self._answer(200, {"branches": [main], "tags": tags, "converts": []})
            if kind == "preupload":
                asked = json.loads(body)["files"]
                found = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked]
                return self._answer(200, {"files": found})
            if kind == "commit":
                oid = hub.commit([json.loads(line) for line in body.splitlines() if line.strip()])
                return self._answer(200, {"commitUrl": f"{hub.url}/{NAME}/commit/{oid}", "commitOid": oid})
            if kind == "tag" and self.command == "POST":
                if hub.resolve(name) in hub.untaggable:
                    return self._answer(403, {"error": "Forbidden"})
                if json.loads(body)["tag"] in hub.tags:
                    return self._answer(409, {"error": "Tag exists"})
                hub.tags[json.loads(body)["tag"]] = hub.resolve(name)
                return self._answer(200)
            if kind == "tag" and self.command == "DELETE":
                del hub.tags[name]
                return self._answer(200)
            if kind == "tree":
                files = hub.commits[hub.resolve(name.split("/")[0])]
                found = [
                    {"type": "file", "path": n, "size": len(c), "oid": hashlib.sha1(c).hexdigest()}
                    for n, c in files.items()
                ]
                return self._answer(200, found)
            if kind == "revision":
                return self._info(hub.resolve(name))
            return self._answer(404, {"error": f"no {rest}"})

        def _info(self, commit):
            siblings = [{"rfilename": name} for name in hub.commits[commit]]
            return self._answer(
                200, {"id": NAME, "modelId": NAME, "sha": commit, "private": True, "siblings": siblings}
            )

        def _file(self, revision, name):
            commit = hub.resolve(revision)
            content = hub.commits.get(commit, {}).get(name)
            if content is None:
                return self._answer(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound")
            etag = f'"{hashlib.sha1(content).hexdigest()}"'
            return self._answer(200, body=content, ETag=etag, X_Repo_Commit=commit)

        do_GET = do_POST = do_DELETE = do_HEAD = _any

    return Handler
