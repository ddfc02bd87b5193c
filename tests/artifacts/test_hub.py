"""The hub, against a local server that implements the requests that a push and a load need."""

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard, metadata_load
from omegaconf import DictConfig
from tests.artifacts.hub_server import Hub, sha, turn_to

import ldbench
from ldbench import hub
from ldbench.artifacts import hub as huggingface
from ldbench.artifacts import store
from ldbench.config.compose import Registry
from ldbench.core.latent import LatentSpec
from ldbench.data.tensor_latents import TensorLatents
from ldbench.io.safetensors_io import write_tensors
from ldbench.pipeline import pipeline
from ldbench.pipeline.generator_plan import plan_generator
from ldbench.pipeline.generator_training import init_generator
from ldbench.results import records

Compose = Callable[..., DictConfig]


@pytest.fixture
def trained(already: Callable[..., Path]) -> Path:
    """The artifact of a tiny tokenizer, beside its record."""
    return already()


def test_the_averages_of_a_generator_are_pushed_and_loaded_again(server: Hub, tmp_path: Path) -> None:
    cfg = ldbench.compose("train", ["generator=sit", "generator.backbone.width=24", "generator.backbone.num_heads=2"])
    latents = TensorLatents(torch.randn(9, 4, 3), torch.arange(9) % 3, latent=LatentSpec(4, 3, (2, 2)), num_classes=3)
    plan = plan_generator(cfg, latents)
    generator, other = (init_generator(plan) for _ in range(2))
    with torch.no_grad():
        next(other.backbone.parameters()).add_(1)
    write_tensors(other.backbone.state_dict(), tmp_path / "average.safetensors")
    store.save(
        generator,
        tmp_path / plan.name,
        plan.blueprint,
        recipe=plan.recipe,
        digest=plan.digest,
        provenance={"created": "", "environment": {}},
        averages={0.95: tmp_path / "average.safetensors"},
    )
    ldbench.push(tmp_path / plan.name, "me/sit")
    assert "averages/0.95.safetensors" in server.repos["me/sit"][-1]
    loaded = store.load_average("hf://me/sit", 0.95)
    theirs = loaded.backbone.state_dict()
    assert all(torch.equal(theirs[key], value) for key, value in other.backbone.state_dict().items())


@pytest.mark.trains
def test_what_is_pushed_is_loaded_again_and_can_be_measured(
    server: Hub, trained: Path, small: Compose, tmp_path: Path
) -> None:
    url = ldbench.push(trained, "me/tiny", private=True, licence="mit", records=tmp_path / "records")
    assert url == f"{server.url}/me/tiny/commit/{sha('me/tiny', 1)}"
    assert server.private["me/tiny"]
    files = server.repos["me/tiny"][-1]
    assert set(files) == {"weights.safetensors", "config.json", "manifest.json", "README.md"}
    assert files["weights.safetensors"] == (trained / "weights.safetensors").read_bytes()
    ours, theirs = ldbench.load(trained).state_dict(), ldbench.load("hf://me/tiny").state_dict()
    assert all(torch.equal(theirs[key], value) for key, value in ours.items())
    again = ldbench.compose(
        "run",
        [
            "tokenizer=artifact",
            "tokenizer.path=hf://me/tiny",
            "protocol=default",
            "data.subset=0.1",
            f"paths.root={tmp_path / 'other'}",
        ],
    )
    pipeline.run(again)
    (path,), (first,) = (sorted((place / "records").glob("*.json")) for place in (tmp_path / "other", tmp_path))
    assert path.name == first.name, "the same measurement of the same artifact"
    record = records.read(path)
    assert record.artifacts == {"tokenizer": trained.name}
    assert record.subject["tokenizer"] == "vmae"
    assert record.metrics == records.read(first).metrics


def test_the_card_holds_the_measurements_and_their_protocol_and_citations(
    server: Hub, trained: Path, tmp_path: Path
) -> None:
    ldbench.push(trained, "me/tiny", licence="mit", records=tmp_path / "records")
    card = ModelCard(server.repos["me/tiny"][-1]["README.md"].decode())
    assert card.data.license == "mit"
    assert card.data.model_name == trained.name
    (record,) = (records.read(path) for path in (tmp_path / "records").glob("*.json"))
    results = {each.metric_name: each for each in card.data.eval_results}
    assert {name: each.metric_value for name, each in results.items()} == {
        name: each.value for name, each in record.metrics.items()
    }
    psnr = results["psnr"]
    assert (psnr.task_name, psnr.dataset_name, psnr.dataset_args) == (
        "reconstruct",
        "digits",
        {"protocol": record.protocol["hash"]},
    )
    assert 'ldbench.load("hf://me/tiny")' in card.text
    assert "eprint = {2507.09984}" in card.text
    assert store.read_manifest(trained)["digest"] in card.text
    assert str(tmp_path) not in card.content


def test_a_second_push_is_a_second_revision_and_the_first_still_loads(
    server: Hub, trained: Path, tmp_path: Path
) -> None:
    ldbench.push(trained, "me/tiny")
    ldbench.push(trained, "me/tiny", licence="mit")
    assert len(server.repos["me/tiny"]) == 3
    first = huggingface.local(f"hf://me/tiny@{sha('me/tiny', 1)}")
    assert first.name == sha("me/tiny", 1)
    assert store.name_of(first) == trained.name
    with pytest.raises(
        ValueError, match=r"hf://me/tiny@v9 cannot be fetched from the Hugging Face hub: it has no such revision\."
    ):
        ldbench.load("hf://me/tiny@v9")


@pytest.mark.parametrize("file", ["weights.safetensors", "config.json"])
def test_a_file_that_was_altered_on_the_hub_is_refused(server: Hub, trained: Path, file: str) -> None:
    ldbench.push(trained, "me/tiny")
    files = server.repos["me/tiny"][-1]
    files[file] = files[file][:-1] + bytes([files[file][-1] ^ 1])
    with pytest.raises(ValueError, match=rf"{file} does not match its manifest"):
        ldbench.load("hf://me/tiny")


def test_a_name_that_is_no_artifact_name_is_refused(trained: Path) -> None:
    manifest = json.loads((trained / "manifest.json").read_text())
    for name in ("../../elsewhere", "vmae", 3, f"../x-{manifest['digest'][:8]}"):
        (trained / "manifest.json").write_text(json.dumps({**manifest, "name": name}))
        with pytest.raises(ValueError, match="names the artifact"):
            store.name_of(trained)


def test_an_altered_artifact_is_not_pushed(server: Hub, trained: Path) -> None:
    with (trained / "config.json").open("a") as file:
        file.write(" ")
    with pytest.raises(ValueError, match="does not match its manifest"):
        ldbench.push(trained, "me/tiny")
    assert not server.asked


@pytest.mark.parametrize(
    ("token", "message"),
    [(None, "Run `hf auth login`, or set HF_TOKEN"), ("hf_wrong", "HF_TOKEN to a valid token")],
)
def test_a_push_without_a_token_or_with_a_wrong_one_says_what_to_do(
    server: Hub, trained: Path, monkeypatch, token, message
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(
        ValueError, match=rf"^me/tiny cannot be pushed to the Hugging Face hub: .*{message}\.$"
    ) as error:
        ldbench.push(trained, "me/tiny")
    assert "\n" not in str(error.value)
    assert "me/tiny" not in server.repos


def test_another_owners_repository_is_refused_in_a_sentence(server: Hub, trained: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"your token has no write access to it\. Create one with write access, or choose a repository of your",
    ):
        ldbench.push(trained, "others/tiny")


def test_an_error_of_the_hub_itself_is_passed_on(server: Hub, trained: Path) -> None:
    with pytest.raises(ValueError, match=r"^broken/tiny cannot be pushed to the Hugging Face hub: .*507"):
        ldbench.push(trained, "broken/tiny")


def test_a_repository_that_does_not_exist_is_reported(server: Hub) -> None:
    with pytest.raises(
        ValueError,
        match=r"hf://me/nothing cannot be fetched from the Hugging Face hub: there is no repository of that name",
    ):
        ldbench.load("hf://me/nothing")


@pytest.mark.parametrize(
    "act", [lambda folder: ldbench.load("hf://me/tiny"), lambda folder: ldbench.push(folder, "me/tiny")]
)
def test_a_missing_network_is_reported(
    server: Hub, trained: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[Path], Any]
) -> None:
    turn_to("http://127.0.0.1:9", monkeypatch)
    with pytest.raises(ValueError, match=r"the hub cannot be reached\. Check the network and HF_ENDPOINT\."):
        act(trained)


def test_what_was_fetched_once_loads_without_a_network(
    server: Hub, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ldbench.push(trained, "me/tiny")
    ldbench.load("hf://me/tiny")
    turn_to("http://127.0.0.1:9", monkeypatch)
    assert ldbench.load("hf://me/tiny").latent == ldbench.load(trained).latent


@pytest.mark.parametrize("repo", ["tiny", "me/tiny/more", "me tiny/x", "hf://me/tiny"])
def test_what_is_no_repository_id_is_refused_before_any_request(server: Hub, trained: Path, repo: str) -> None:
    with pytest.raises(ValueError, match="A repository on the hub is owner/name"):
        ldbench.push(trained, repo)
    assert not server.asked


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("repo=me/tiny", "push must be the folder"),
        ("push=DIR", "repo must be owner/name"),
        ("private=2", "private must be true or false"),
    ],
)
def test_the_command_names_what_is_missing(override: str, message: str) -> None:
    rest = {"push": "push=x", "repo": "repo=me/x"} if override.startswith("private") else {}
    with pytest.raises(ValueError, match=message):
        hub.run(ldbench.compose("hub", [override, *rest.values()]), Registry())


def test_the_command_pushes(server: Hub, trained: Path, tmp_path: Path) -> None:
    hub.run(ldbench.compose("hub", [f"push={trained}", "repo=me/tiny", f"paths.root={tmp_path}"]), Registry())
    (tmp_path / "card.md").write_bytes(server.repos["me/tiny"][-1]["README.md"])
    assert metadata_load(tmp_path / "card.md")["model-index"]


@pytest.mark.trains
def test_no_connection_is_opened_unless_it_is_requested(
    small: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
        ldbench.compose(
            "run",
            [
                "tokenizer=artifact",
                f"tokenizer.path={tmp_path / 'elsewhere'}",
                "protocol=default",
                f"paths.root={tmp_path / 'b'}",
            ],
        )
    )
    assert not called
    with pytest.raises(ValueError, match="the hub cannot be reached"):
        huggingface.fetch("me/tiny")
    assert called, "the test would have seen it"
