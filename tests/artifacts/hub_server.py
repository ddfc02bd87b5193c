"""A local hub: the part of the Hugging Face hub's API that a push, a load and records in dataset repositories need."""

import base64
import hashlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants


class Hub(ThreadingHTTPServer):
    """Repositories in memory, a list of commits each; large files are separate from the commits, as on the real hub."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.repos: dict[str, list[dict[str, bytes]]] = {}
        self.pulls: dict[str, list[dict[str, bytes]]] = {}  # pull requests, all open and by the same user
        self.private: dict[str, bool] = {}
        self.large: dict[str, bytes] = {}
        self.token = "hf_secret"
        self.asked: list[str] = []
        self.checked: list[str] = []  # cards

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


def turn_to(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Points huggingface_hub to another server; it reads HF_ENDPOINT only once."""
    from huggingface_hub import hf_api

    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(hf_api.api, "endpoint", url)


def sha(repo: str, number: int) -> str:
    """The name of a commit."""
    return hashlib.sha1(f"{repo}/{number}".encode()).hexdigest()


class Answer(BaseHTTPRequestHandler):
    """One request to the hub."""

    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def reply(self, content: Any, status: int = 200, **headers: str) -> None:
        """Answers with JSON, or with bytes."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, code: str = "") -> None:
        """Answers with an error."""
        self.reply({"error": code}, status, **({"X_Error_Code": code} if code else {}))

    def held(self, repo: str, revision: str) -> dict[str, bytes] | None:
        """The files of a revision; replies with an error where there is none."""
        commits = self.server.repos.get(repo)
        if commits is None:
            self.refuse(404, "RepoNotFound")
            return None
        names = {sha(repo, number): files for number, files in enumerate(commits)} | {"main": commits[-1]}
        for number, files in enumerate(self.server.pulls.get(repo, []), 1):
            names |= {f"refs/pr/{number}": files, sha(f"{repo}/pull", number): files}
        if revision not in names:
            self.refuse(404, "RevisionNotFound")
        self.sha = next((name for name, files in names.items() if files is names.get(revision) and len(name) == 40), "")
        return names.get(revision)

    def do_GET(self) -> None:
        """Files and listings of them."""
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        self.server.asked.append(self.path)
        if parts[:2] == ["api", "whoami-v2"]:
            return self.reply({"name": "me", "type": "user"})
        if parts[4:] == ["discussions"]:
            found = [self.pull_request("/".join(parts[2:4]), number) for number in self.pull_numbers(parts)]
            return self.reply({"count": len(found), "start": 0, "discussions": found})
        if parts[0] == "datasets":  # its files
            del parts[0]
        if parts[0] == "api":
            repo, rest = "/".join(parts[2:4]), parts[4:]
            files = self.held(repo, rest[1] if len(rest) > 1 else "main")
            if files is None:
                return
            if rest and rest[0] == "tree":
                under = "".join(f"{part}/" for part in rest[2:])
                oids = {
                    name: hashlib.sha1(content).hexdigest() for name, content in files.items() if name.startswith(under)
                }
                if under and not oids:
                    return self.refuse(404, "EntryNotFound")
                self.reply(
                    [{"type": "file", "path": name, "size": len(files[name]), "oid": oid} for name, oid in oids.items()]
                )
            else:
                self.reply(
                    {
                        "id": repo,
                        "sha": self.sha,
                        "private": False,
                        "siblings": [{"rfilename": name} for name in files],
                        "tags": [],
                    }
                )
            return
        repo, (_, revision, *path) = "/".join(parts[:2]), parts[2:]
        files = self.held(repo, revision)
        if files is not None:
            content = files["/".join(path)]
            self.reply(content, ETag=f'"{hashlib.sha1(content).hexdigest()}"', X_Repo_Commit=self.sha)

    do_HEAD = do_GET

    def pull_numbers(self, parts: list[str]) -> range:
        """The numbers of a repository's pull requests."""
        return range(1, 1 + len(self.server.pulls.get("/".join(parts[2:4]), [])))

    def pull_request(self, repo: str, number: int) -> dict[str, Any]:
        """A pull request in a list."""
        return {
            **{"title": "records", "num": number, "author": {"name": "me"}, "status": "open", "isPullRequest": True},
            **{"createdAt": "2026-01-01T00:00:00.000Z", "repo": {"name": repo, "type": "dataset"}},
        }

    def do_PUT(self) -> None:
        """A large file."""
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.large[self.path.rpartition("/")[2]] = content
        self.reply({})

    def do_POST(self) -> None:
        """Repositories and commits, given the token."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append(self.path)
        if self.headers.get("Authorization") != f"Bearer {self.server.token}":
            return self.refuse(401)
        path = urlsplit(self.path).path
        if path == "/api/repos/create":
            settings = json.loads(body)
            if settings["organization"] in ("others", "broken"):
                return self.refuse(403 if settings["organization"] == "others" else 507)
            repo = f"{settings['organization']}/{settings['name']}"
            if repo in self.server.repos:
                return self.reply(
                    {"error": "You already created this model repo", "url": f"{self.server.url}/{repo}"}, 409
                )
            self.server.repos[repo] = [{}]
            self.server.private[repo] = settings.get("visibility") == "private" or bool(settings.get("private"))
            return self.reply({"url": f"{self.server.url}/{repo}"})
        if path == "/api/validate-yaml":
            self.server.checked.append(json.loads(body)["content"])
            return self.reply({"errors": [], "warnings": []})
        if path.endswith("/objects/batch"):
            uploads = [
                {**each, "actions": {"upload": {"href": f"{self.server.url}/large/{each['oid']}"}}}
                for each in json.loads(body)["objects"]
            ]
            return self.reply({"transfer": "basic", "objects": uploads})
        repo = "/".join(path.strip("/").split("/")[2:4])
        if "/preupload/" in path:
            modes = [
                (file["path"], "lfs" if file["path"].endswith(".safetensors") else "regular")
                for file in json.loads(body)["files"]
            ]
            return self.reply(
                {"files": [{"path": name, "uploadMode": mode, "shouldIgnore": False} for name, mode in modes]}
            )
        files = dict(self.server.repos[repo][-1])
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.large[value["oid"]]
        if "create_pr=1" in urlsplit(self.path).query:
            pulls = self.server.pulls.setdefault(repo, [])
            pulls.append(files)
            number = len(pulls)
            return self.reply(
                {
                    **{"commitUrl": f"{self.server.url}/datasets/{repo}/commit/{sha(f'{repo}/pull', number)}"},
                    **{"commitOid": sha(f"{repo}/pull", number)},
                    **{"pullRequestUrl": f"{self.server.url}/datasets/{repo}/discussions/{number}"},
                }
            )
        self.server.repos[repo].append(files)
        commit = sha(repo, len(self.server.repos[repo]) - 1)
        return self.reply({"commitUrl": f"{self.server.url}/{repo}/commit/{commit}", "commitOid": commit})
