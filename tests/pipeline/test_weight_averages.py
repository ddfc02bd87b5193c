"""The weight averages of a generator: all are in its artifact, and none but the exported one changes a number."""

import json
import shutil

import pytest
import torch
from tests.pipeline.generator_trainings import same

import ldbench
from ldbench.artifacts import store
from ldbench.artifacts.averages import average_path
from ldbench.io.safetensors_io import write_tensors
from ldbench.pipeline import generator_training, get_generator
from ldbench.pipeline.trained_model import TrainedModel

pytestmark = pytest.mark.trains


@pytest.mark.usefixtures("trained")
def test_its_artifact_holds_every_average_and_one_more_changes_no_number(plan_of) -> None:
    planned = plan_of()
    found = TrainedModel(get_generator.train_plan(planned).folder, planned.digest)
    assert list(found.averages) == [0.5]
    assert same(found.load_average(0.5), generator_training.averaged(planned, 0.5))
    with pytest.raises(ValueError, match=r"no average with the decay 0\.9; beside .* it holds \[0\.5\]\. Choose one"):
        found.load_average(0.9)
    alone = plan_of("generator.ema_decays=[0.9]")
    assert (alone.folder, alone.other_averages) == (planned.folder, [])
    for folder in (planned.folder, planned.run_folder):
        folder.rename(folder.with_name("before"))
    assert same(ldbench.load(get_generator.train_plan(alone).folder), ldbench.load(found.folder.with_name("before")))
    assert not TrainedModel(alone.folder, alone.digest).averages


@pytest.mark.usefixtures("trained")
def test_an_average_that_was_altered_or_is_of_another_network_is_refused(plan_of) -> None:
    folder = get_generator.train_plan(plan_of()).folder
    path, manifest = average_path(folder, 0.5), json.loads((folder / store.MANIFEST).read_text())
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ValueError, match=r"0\.5\.safetensors does not match its manifest"):
        ldbench.load(folder)
    write_tensors({"a": torch.zeros(2)}, path)
    for name, checksum in (("0.5", store.file_digest(path)), ("../0.5", "0" * 64), ("nan", "0" * 64), ("0.50", "0")):
        (folder / store.MANIFEST).write_text(json.dumps({**manifest, "averages": {name: checksum}}))
        with pytest.raises(ValueError, match=r"holds no average of its backbone: .*missing|lists an average"):
            store.load_average(folder, 0.5)


@pytest.mark.usefixtures("trained")
def test_an_artifact_without_an_average_says_how_to_have_it_and_a_run_without_it_is_not_continued(
    plan_of, caplog
) -> None:
    more = plan_of("generator.ema_decays=[0.9,0.5,0.7]")
    with caplog.at_level("INFO"):
        get_generator.train_plan(more)
    assert "stored without the averages 0.7" in caplog.text
    shutil.rmtree(more.folder)
    with pytest.raises(ValueError, match=r"averages \[0\.9, 0\.5\], and generator\.ema_decays=\[0\.9, 0\.5, 0\.7\]"):
        get_generator.train_plan(more)
    (more.run_folder / "averages.json").unlink()  # a run of before averages were stored
    with pytest.raises(ValueError, match=r"Set generator\.ema_decays=\[0\.9\] to go on with it, or remove the run"):
        get_generator.train_plan(more)
