"""Records in dataset repositories, against a local server that implements the requests that they need."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.artifacts.hub_server import Hub, sha, turn_to
from tests.fixtures import Answer
from tests.made_records import make_record

from ldbench import leaderboard
from ldbench.artifacts import record_repositories as repositories
from ldbench.results import records, store, validation
from ldbench.results.records import Record

PNG = store.PNG + b"rest"
ONE, TWO = make_record(tokenizer="vmae"), make_record(tokenizer="vavae")
NAMES = {record.subject["tokenizer"]: f"reconstruct-{record.id}" for record in (ONE, TWO)}


@pytest.fixture
def theirs(server: Hub, tmp_path: Path) -> Callable[..., None]:
    """Puts records into a repository, a commit each time; `more`: further files."""
    server.repos["me/records"] = [{}]

    def commit(*made: Record, more: dict[str, bytes] | None = None) -> None:
        files = {f"records/{path.name}": path.read_bytes() for path in (written(tmp_path, one) for one in made)}
        server.repos["me/records"].append(server.repos["me/records"][-1] | files | (more or {}))

    return commit


def written(folder: Path, record: Record) -> Path:
    return records.write(record, folder / "written")


def test_records_of_a_repository_come_with_their_sheets_and_the_commit_is_told(server, theirs, tmp_path):
    beside = {f"records/{NAMES['vavae']}/{name}": PNG for name in ("a.png", "b.txt", "c/d.png")}
    theirs(ONE)
    theirs(TWO, more=beside | {"README.md": b"#", "records/notes.json": b"{", f"records/{'0' * 9}/x.png": PNG})
    new, origin = repositories.merge("hf://datasets/me/records", tmp_path / "ours")
    assert origin == f"hf://datasets/me/records@{sha('me/records', 2)}"
    assert {record.id for record in new} == {ONE.id, TWO.id}
    assert store.read_all(tmp_path / "ours") == sorted([ONE, TWO], key=lambda record: (record.created, record.id))
    assert [path.name for path in (tmp_path / "ours" / NAMES["vavae"]).iterdir()] == ["a.png"]
    assert not [path for path in server.asked if "b.txt" in path or "README" in path or "notes" in path]


def test_a_revision_is_what_is_merged(theirs, tmp_path):
    theirs(ONE)
    theirs(TWO)
    first = sha("me/records", 1)
    new, origin = repositories.merge(f"hf://datasets/me/records@{first}", tmp_path / "ours")
    assert [record.id for record in new] == [ONE.id]
    assert origin == f"hf://datasets/me/records@{first}"


def test_what_is_here_already_is_not_downloaded(server, theirs, tmp_path):
    theirs(ONE, TWO)
    records.write(ONE, tmp_path / "ours")
    new, _ = repositories.merge("hf://datasets/me/records", tmp_path / "ours")
    assert [record.id for record in new] == [TWO.id]
    assert not [path for path in server.asked if NAMES["vmae"] in path]
    assert repositories.merge("hf://datasets/me/records", tmp_path / "ours")[0] == []


def test_one_invalid_record_stops_a_merge_and_is_named_by_the_repository(server, theirs, tmp_path):
    wrong = json.loads(written(tmp_path, TWO).read_text()) | {"created": "yesterday"}
    theirs(ONE, more={f"records/{NAMES['vavae']}.json": json.dumps(wrong).encode()})
    expected = f"hf://datasets/me/records@{sha('me/records', 1)}/{NAMES['vavae']}.json: created must be a time"
    with pytest.raises(ValueError, match=re.escape(expected)):
        repositories.merge("hf://datasets/me/records", tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_a_huge_record_is_not_downloaded(server, theirs, tmp_path, monkeypatch):
    theirs(ONE)
    monkeypatch.setattr(validation, "LARGEST", 10)
    with pytest.raises(ValueError, match=r"reconstruct-\w+\.json has \d+ bytes, and a record has at most 10"):
        repositories.merge("hf://datasets/me/records", tmp_path / "ours")
    assert not [path for path in server.asked if "/resolve/" in path]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hf://me/records", r"Records are in dataset repositories, hf://datasets/owner/name"),
        ("hf://datasets/records", "A repository on the hub is owner/name"),
        ("hf://datasets/me/records/../x", "leads out of its repository"),
        ("hf://datasets/me/nothing", "there is no repository of that name"),
        ("hf://datasets/me/records@v9", "it has no such revision"),
        ("hf://datasets/me/records", "There are no records in hf://datasets/me/records@"),
        ("hf://datasets/me/records/other", "There are no records in hf://datasets/me/records/other@"),
    ],
)
def test_what_cannot_be_merged_is_refused_with_what_to_do(theirs, tmp_path, name, message):
    theirs(more={"README.md": b"#"})
    with pytest.raises(ValueError, match=message):
        repositories.merge(name, tmp_path / "ours")


@pytest.mark.parametrize(
    "act",
    [
        lambda folder: repositories.merge("hf://datasets/me/records", folder),
        lambda folder: repositories.propose([ONE], folder, "hf://datasets/me/records"),
    ],
)
def test_a_missing_network_is_reported(server, tmp_path, monkeypatch, act):
    turn_to("http://127.0.0.1:9", monkeypatch)
    with pytest.raises(ValueError, match=r"the hub cannot be reached\. Check the network and HF_ENDPOINT\."):
        act(tmp_path)


def test_ones_records_are_sent_for_review_and_nothing_is_sent_twice_or_replaced(server, theirs, tmp_path):
    ours = tmp_path / "ours"
    figures = records.write(TWO, ours).with_suffix("")
    records.write(ONE, ours)
    figures.mkdir()
    (figures / "reconstructions.png").write_bytes(PNG)
    (figures / "images.csv").write_text("image,psnr")
    theirs(ONE, more={f"records/{NAMES['vmae']}.json": b"{}"})
    done = repositories.propose([ONE, TWO], ours, "hf://datasets/me/records")
    assert done.url == f"{server.url}/datasets/me/records/discussions/1"
    assert ([record.id for record in done.sent], done.num_there, done.num_open) == ([TWO.id], 1, 0)
    (pull,) = server.pulls["me/records"]
    before = server.repos["me/records"][-1]
    assert pull.keys() - before.keys() == {
        f"records/{NAMES['vavae']}.json",
        f"records/{NAMES['vavae']}/reconstructions.png",
    }
    assert before.items() <= pull.items(), "what is there stays"
    assert len(server.repos["me/records"]) == 2, "the main branch too"
    again = repositories.propose([ONE, TWO], ours, "hf://datasets/me/records")
    assert (again.url, again.num_there, again.num_open) == (None, 1, 1)
    assert len(server.pulls["me/records"]) == 1


def test_a_pull_request_can_be_validated_and_merged_by_its_revision(server, theirs, tmp_path, answer: Answer):
    theirs(ONE)
    records.write(TWO, tmp_path / "records")
    repositories.propose([TWO], tmp_path / "records", "hf://datasets/me/records")
    done = answer(leaderboard, "validate=hf://datasets/me/records@refs/pr/1", cwd=tmp_path)
    assert done.stdout == f"hf://datasets/me/records@{sha('me/records/pull', 1)}: 2 records valid.\n"


@pytest.mark.parametrize(
    ("token", "message"), [(None, "Run `hf auth login`, or set HF_TOKEN"), ("hf_wrong", "valid token")]
)
def test_a_push_without_a_token_or_with_a_wrong_one_says_what_to_do(theirs, tmp_path, monkeypatch, token, message):
    theirs(more={"README.md": b"#"})
    records.write(ONE, tmp_path)
    monkeypatch.delenv("HF_TOKEN")
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(ValueError, match=rf"^hf://datasets/me/records cannot be pushed to .*{message}"):
        repositories.propose([ONE], tmp_path, "hf://datasets/me/records")


def test_a_push_to_a_revision_is_refused(server, tmp_path):
    with pytest.raises(ValueError, match=r"records are proposed for the main branch\. Leave it out"):
        repositories.propose([ONE], tmp_path, "hf://datasets/me/records@v1")
    assert not server.asked


def test_the_command_merges_and_pushes(server, theirs, tmp_path, answer: Answer):
    theirs(ONE)
    records.write(TWO, tmp_path / "records")
    done = answer(leaderboard, "merge=hf://datasets/me/records", cwd=tmp_path)
    assert f"Merged 1 new record of hf://datasets/me/records@{sha('me/records', 1)} into records." in done.stdout
    assert "vmae" in done.stdout
    pushed = answer(leaderboard, "push=hf://datasets/me/records", cwd=tmp_path).stdout.splitlines()
    url = f"{server.url}/datasets/me/records/discussions/1"
    assert pushed == ["Not sent: 1 that it has already.", f"Sent 1 record for review: {url}"]
    again = answer(leaderboard, "push=hf://datasets/me/records", f"only=[{NAMES['vavae']}]", cwd=tmp_path).stdout
    assert again.splitlines() == [
        "Not sent: 1 that your open pull requests have.",
        "Nothing was sent to hf://datasets/me/records.",
    ]
