"""The hub, against a server of our own on this machine that speaks as much of its language as a push and a load need."""

import base64
import hashlib
import json
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import torch
from huggingface_hub import ModelCard, constants, metadata_load
from omegaconf import DictConfig

import ldbench
from ldbench import artifacts, hub, huggingface, model_card, official, pipeline
from ldbench.core.estimate import Estimate
from ldbench.results import records

Compose = Callable[..., DictConfig]


class Hub(ThreadingHTTPServer):
    """Repositories in memory, a list of commits each; large files come and go beside the commits, as on the true hub."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.repos: dict[str, list[dict[str, bytes]]] = {}
        self.private: dict[str, bool] = {}
        self.large: dict[str, bytes] = {}
        self.token = "hf_secret"
        self.asked: list[str] = []
        self.checked: list[str] = []  # cards

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


def sha(repo: str, number: int) -> str:
    """The name of a commit."""
    return hashlib.sha1(f"{repo}/{number}".encode()).hexdigest()


class Answer(BaseHTTPRequestHandler):
    """One request to the hub."""

    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def say(self, content: Any, status: int = 200, **headers: str) -> None:
        """Answers with JSON, or with bytes."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, code: str = "") -> None:
        """Answers that it cannot be."""
        self.say({"error": code}, status, **({"X_Error_Code": code} if code else {}))

    def held(self, repo: str, revision: str) -> dict[str, bytes] | None:
        """The files of a revision, after an answer where there is none."""
        commits = self.server.repos.get(repo)
        if commits is None:
            self.refuse(404, "RepoNotFound")
            return None
        names = {sha(repo, number): files for number, files in enumerate(commits)} | {"main": commits[-1]}
        if revision not in names:
            self.refuse(404, "RevisionNotFound")
        self.sha = next((name for name, files in names.items() if files is names.get(revision)), "")
        return names.get(revision)

    def do_GET(self) -> None:
        """Files, and what there is of them."""
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        self.server.asked.append(self.path)
        if parts[0] == "api":
            repo, rest = "/".join(parts[2:4]), parts[4:]
            files = self.held(repo, rest[1] if len(rest) > 1 else "main")
            if files is None:
                return
            if rest and rest[0] == "tree":
                oids = {name: hashlib.sha1(content).hexdigest() for name, content in files.items()}
                self.say([{"type": "file", "path": name, "size": len(files[name]), "oid": oid} for name, oid in oids.items()])
            else:
                self.say({"id": repo, "sha": self.sha, "private": False, "siblings": [{"rfilename": name} for name in files], "tags": []})
            return
        repo, (_, revision, *path) = "/".join(parts[:2]), parts[2:]
        files = self.held(repo, revision)
        if files is not None:
            content = files["/".join(path)]
            self.say(content, ETag=f'"{hashlib.sha1(content).hexdigest()}"', X_Repo_Commit=self.sha)

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        """A large file."""
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.large[self.path.rpartition("/")[2]] = content
        self.say({})

    def do_POST(self) -> None:
        """Repositories and commits: of whoever has the token."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append(self.path)
        if self.headers.get("Authorization") != f"Bearer {self.server.token}":
            return self.refuse(401)
        path = urlsplit(self.path).path
        if path == "/api/repos/create":
            told = json.loads(body)
            if told["organization"] in ("others", "broken"):
                return self.refuse(403 if told["organization"] == "others" else 507)
            repo = f"{told['organization']}/{told['name']}"
            if repo in self.server.repos:
                return self.say({"error": "You already created this model repo", "url": f"{self.server.url}/{repo}"}, 409)
            self.server.repos[repo] = [{}]
            self.server.private[repo] = told.get("visibility") == "private" or bool(told.get("private"))
            return self.say({"url": f"{self.server.url}/{repo}"})
        if path == "/api/validate-yaml":
            self.server.checked.append(json.loads(body)["content"])
            return self.say({"errors": [], "warnings": []})
        if path.endswith("/objects/batch"):
            uploads = [{**each, "actions": {"upload": {"href": f"{self.server.url}/large/{each['oid']}"}}} for each in json.loads(body)["objects"]]
            return self.say({"transfer": "basic", "objects": uploads})
        repo = "/".join(path.strip("/").split("/")[2:4])
        if "/preupload/" in path:
            modes = [(file["path"], "lfs" if file["path"].endswith(".safetensors") else "regular") for file in json.loads(body)["files"]]
            return self.say({"files": [{"path": name, "uploadMode": mode, "shouldIgnore": False} for name, mode in modes]})
        files = dict(self.server.repos[repo][-1])
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.large[value["oid"]]
        self.server.repos[repo].append(files)
        commit = sha(repo, len(self.server.repos[repo]) - 1)
        return self.say({"commitUrl": f"{self.server.url}/{repo}/commit/{commit}", "commitOid": commit})


def turn_to(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes huggingface_hub ask another place; it reads HF_ENDPOINT only once."""
    from huggingface_hub import hf_api

    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(hf_api.api, "endpoint", url)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub of our own, whose token we have, and a cache of our own."""
    running = Hub()
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    turn_to(running.url, monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # large files by git's own way, which our server speaks
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.setenv("HF_TOKEN", running.token)
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


@pytest.fixture(scope="module")
def made(small_overrides: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a tiny tokenizer was trained and measured, once for all tests here."""
    root = tmp_path_factory.mktemp("made")
    pipeline.train(ldbench.compose("train", [*small_overrides, f"paths.root={root}"]))
    return root


@pytest.fixture
def trained(made: Path, tmp_path: Path) -> Path:
    """A copy of its artifact, beside its record."""
    for part in ("artifacts", "records"):
        shutil.copytree(made / part, tmp_path / part)
    (folder,) = (path.parent for path in (tmp_path / "artifacts" / "tokenizers").glob("*/manifest.json"))
    return folder


def test_what_is_pushed_is_loaded_again_and_can_be_measured(server: Hub, trained: Path, small: Compose, tmp_path: Path) -> None:
    url = ldbench.push(trained, "me/tiny", private=True, licence="mit", records=tmp_path / "records")
    assert url == f"{server.url}/me/tiny/commit/{sha('me/tiny', 1)}"
    assert server.private["me/tiny"]
    files = server.repos["me/tiny"][-1]
    assert set(files) == {"weights.safetensors", "config.json", "manifest.json", "README.md"}
    assert files["weights.safetensors"] == (trained / "weights.safetensors").read_bytes()
    ours, theirs = ldbench.load(trained).state_dict(), ldbench.load("hf://me/tiny").state_dict()
    assert all(torch.equal(theirs[key], value) for key, value in ours.items())
    again = ldbench.compose(
        "run", ["tokenizer=artifact", "tokenizer.path=hf://me/tiny", "protocol=default", "data.subset=0.1", f"paths.root={tmp_path / 'other'}"]
    )
    pipeline.run(again)
    (path,), (first,) = (sorted((place / "records").glob("*.json")) for place in (tmp_path / "other", tmp_path))
    assert path.name == first.name, "the same measurement of the same artifact"
    record = records.read(path)
    assert record.artifacts == {"tokenizer": trained.name}
    assert record.subject["tokenizer"] == "vmae"
    assert record.metrics == records.read(first).metrics


def test_the_card_tells_what_was_measured_and_how_and_what_to_cite(server: Hub, trained: Path, tmp_path: Path) -> None:
    ldbench.push(trained, "me/tiny", licence="mit", records=tmp_path / "records")
    card = ModelCard(server.repos["me/tiny"][-1]["README.md"].decode())
    assert card.data.license == "mit"
    assert card.data.model_name == trained.name
    (record,) = (records.read(path) for path in (tmp_path / "records").glob("*.json"))
    told = {each.metric_name: each for each in card.data.eval_results}
    assert {name: each.metric_value for name, each in told.items()} == {name: each.value for name, each in record.metrics.items()}
    psnr = told["psnr"]
    assert (psnr.task_name, psnr.dataset_name, psnr.dataset_args) == ("reconstruct", "digits", {"protocol": record.protocol["hash"]})
    assert 'ldbench.load("hf://me/tiny")' in card.text
    assert "eprint = {2507.09984}" in card.text
    assert artifacts.read_manifest(trained)["digest"] in card.text
    assert str(tmp_path) not in card.content


def test_a_second_push_is_a_second_revision_and_the_first_can_still_be_had(server: Hub, trained: Path, tmp_path: Path) -> None:
    ldbench.push(trained, "me/tiny")
    ldbench.push(trained, "me/tiny", licence="mit")
    assert len(server.repos["me/tiny"]) == 3
    first = artifacts.local(f"hf://me/tiny@{sha('me/tiny', 1)}")
    assert first.name == sha("me/tiny", 1)
    assert artifacts.name_of(first) == trained.name
    with pytest.raises(ValueError, match=r"hf://me/tiny@v9 cannot be fetched from the Hugging Face hub: it has no such revision\."):
        ldbench.load("hf://me/tiny@v9")


@pytest.mark.parametrize("file", ["weights.safetensors", "config.json"])
def test_a_file_that_was_altered_on_the_hub_is_refused(server: Hub, trained: Path, file: str) -> None:
    ldbench.push(trained, "me/tiny")
    files = server.repos["me/tiny"][-1]
    files[file] = files[file][:-1] + bytes([files[file][-1] ^ 1])
    with pytest.raises(ValueError, match=rf"{file} is not what its manifest says"):
        ldbench.load("hf://me/tiny")


def test_a_strangers_name_leads_nowhere(trained: Path) -> None:
    told = json.loads((trained / "manifest.json").read_text())
    for name in ("../../elsewhere", "vmae", 3, f"../x-{told['digest'][:8]}"):
        (trained / "manifest.json").write_text(json.dumps({**told, "name": name}))
        with pytest.raises(ValueError, match="names the artifact"):
            artifacts.name_of(trained)


def test_an_altered_artifact_is_not_pushed(server: Hub, trained: Path) -> None:
    with (trained / "config.json").open("a") as file:
        file.write(" ")
    with pytest.raises(ValueError, match="not what its manifest says"):
        ldbench.push(trained, "me/tiny")
    assert not server.asked


@pytest.mark.parametrize(("token", "said"), [(None, "Run `hf auth login`, or set HF_TOKEN"), ("hf_wrong", "HF_TOKEN to a token that is valid")])
def test_a_push_without_a_token_or_with_a_wrong_one_says_what_to_do(server: Hub, trained: Path, monkeypatch, token, said) -> None:
    monkeypatch.delenv("HF_TOKEN")
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(ValueError, match=rf"^me/tiny cannot be pushed to the Hugging Face hub: .*{said}\.$") as told:
        ldbench.push(trained, "me/tiny")
    assert "\n" not in str(told.value)
    assert "me/tiny" not in server.repos


def test_another_owners_repository_is_refused_in_a_sentence(server: Hub, trained: Path) -> None:
    with pytest.raises(ValueError, match=r"your token may not write there\. Make one with write access, or choose a repository of your own\."):
        ldbench.push(trained, "others/tiny")


def test_an_error_of_the_hub_itself_is_told_as_it_is(server: Hub, trained: Path) -> None:
    with pytest.raises(ValueError, match=r"^broken/tiny cannot be pushed to the Hugging Face hub: .*507"):
        ldbench.push(trained, "broken/tiny")


def test_a_repository_that_is_not_there_is_told(server: Hub) -> None:
    with pytest.raises(
        ValueError, match=r"hf://me/nothing cannot be fetched from the Hugging Face hub: there is none of that name, or it is private"
    ):
        ldbench.load("hf://me/nothing")


@pytest.mark.parametrize("act", [lambda folder: ldbench.load("hf://me/tiny"), lambda folder: ldbench.push(folder, "me/tiny")])
def test_no_network_is_told(server: Hub, trained: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[Path], Any]) -> None:
    turn_to("http://127.0.0.1:9", monkeypatch)
    with pytest.raises(ValueError, match=r"the hub cannot be reached\. Look at the network, or at HF_ENDPOINT\."):
        act(trained)


def test_what_was_fetched_once_is_there_without_a_network(server: Hub, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ldbench.push(trained, "me/tiny")
    ldbench.load("hf://me/tiny")
    turn_to("http://127.0.0.1:9", monkeypatch)
    assert ldbench.load("hf://me/tiny").latent == ldbench.load(trained).latent


@pytest.mark.parametrize("repo", ["tiny", "me/tiny/more", "me tiny/x", "hf://me/tiny"])
def test_what_is_no_name_on_the_hub_is_refused_before_it_is_asked(server: Hub, trained: Path, repo: str) -> None:
    with pytest.raises(ValueError, match="A name on the hub is owner/name"):
        ldbench.push(trained, repo)
    assert not server.asked


@pytest.mark.parametrize(
    ("override", "said"),
    [("repo=me/tiny", "push must be the folder"), ("push=DIR", "repo must be owner/name"), ("private=2", "private must be true or false")],
)
def test_the_command_says_what_it_lacks(override: str, said: str) -> None:
    rest = {"push": "push=x", "repo": "repo=me/x"} if override.startswith("private") else {}
    with pytest.raises(ValueError, match=said):
        hub.run(ldbench.compose("hub", [override, *rest.values()]), [])


def test_the_command_pushes(server: Hub, trained: Path, tmp_path: Path) -> None:
    hub.run(ldbench.compose("hub", [f"push={trained}", "repo=me/tiny", f"paths.root={tmp_path}"]), [])
    (tmp_path / "card.md").write_bytes(server.repos["me/tiny"][-1]["README.md"])
    assert metadata_load(tmp_path / "card.md")["model-index"]


def record(job: str, **roles: str) -> records.Record:
    """A record of artifacts."""
    told = {"subject": {"tokenizer": "a", "generator": None, "data": "digits"}, "config": {}, "environment": {}, "created": "2030-01-01"}
    return records.Record(id=job, job=job, metrics={"psnr": Estimate(float("inf"))}, protocol={"hash": "0" * 16}, artifacts=roles, **told)


def test_a_tokenizers_figures_are_not_those_of_its_generators() -> None:
    own, cell, other = record("own", tokenizer="t-1"), record("cell", tokenizer="t-1", generator="g-1"), record("other", tokenizer="t-2")
    assert model_card.measured([own, cell, other], "t-1", "tokenizer") == [own]
    assert model_card.measured([own, cell, other], "g-1", "generator") == [cell]


def described(folder: Path, component: str, **recipe: object) -> Path:
    """An artifact of which only its words are there."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"group": folder.parent.name[:-1], "component": component, "keywords": {}, "recipe": recipe}))
    told = {"files": {"config.json": "", "weights.safetensors": ""}, "schema": artifacts.SCHEMA, "digest": folder.name.rpartition("-")[2]}
    (folder / "manifest.json").write_text(json.dumps(told))
    return folder


def test_a_generators_card_cites_the_paper_of_its_tokenizer_too(tmp_path: Path) -> None:
    own = described(
        tmp_path / "generators" / "lightningdit_xl_1-01234567", "generator", official="lightningdit_xl_1", upstream={"tokenizer": "89abcdef00"}
    )
    assert model_card.citing(own, []).count("eprint") == 1, "nobody knows which tokenizer it is"
    made_of = [record("cell", tokenizer="maetok-89abcdef", generator=own.name)]
    assert official.entry("maetok_b_128").citation.rpartition("arXiv:")[2] in model_card.citing(own, made_of)
    described(tmp_path / "tokenizers" / "mine-89abcdef", "vmae")
    told = model_card.citing(own, made_of)
    assert [official.entry(name).citation.rpartition("arXiv:")[2] in told for name in ("lightningdit_xl_1", "vmae_f8d16", "maetok_b_128")] == [
        *(True, True, False)
    ]


@pytest.mark.parametrize("name", sorted(official.catalogue()))
def test_every_official_citation_is_bibtex_too(name: str) -> None:
    told = model_card.bibtex(official.entry(name).citation)
    assert official.entry(name).citation.rpartition("arXiv:")[2] in told
    assert told.count("{") == told.count("}")


def test_the_papers_are_those_of_official_models() -> None:
    assert set(model_card.PAPERS.values()) <= official.catalogue().keys()


def test_nothing_calls_out_unless_it_is_asked_to(small: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Any] = []

    def connect(self: socket.socket, address: Any) -> None:
        called.append(address)
        raise OSError("no network in this test")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, connect)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *asked, **_: connect(SimpleNamespace(), asked))
    folder = pipeline.train(small())
    ldbench.load(folder)
    shutil.copytree(folder, tmp_path / "elsewhere")
    pipeline.run(
        ldbench.compose("run", ["tokenizer=artifact", f"tokenizer.path={tmp_path / 'elsewhere'}", "protocol=default", f"paths.root={tmp_path / 'b'}"])
    )
    assert not called
    with pytest.raises(ValueError, match="the hub cannot be reached"):
        huggingface.fetch("me/tiny")
    assert called, "the test would have seen it"
