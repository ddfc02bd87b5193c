"""The command: tables, files, comparison, ranking, merging, refusals; no model is opened."""

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.fixtures import Answer
from tests.made_records import GENERATION, save_reconstructions, save_samples

from ldbench import leaderboard
from ldbench.results import records, store
from ldbench.results.records import protocol_hash


@pytest.fixture
def run(answer: Answer) -> Callable[..., subprocess.CompletedProcess[str]]:
    return partial(answer, leaderboard)


@pytest.fixture
def refused(run) -> Callable[..., str]:
    def answer(*overrides: str, cwd: Path) -> str:
        done = run(*overrides, cwd=cwd)
        assert done.returncode == 2, done.stdout
        assert "Traceback" not in done.stderr
        return done.stderr

    return answer


def test_records_become_tables_in_the_terminal_and_in_four_files(store, tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "HYDRA_FULL_ERROR"}
    command = [sys.executable, "-m", "ldbench.leaderboard"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "digits: generate, protocol digits" in done.stdout
    assert "#1" in done.stdout
    assert "tables of papers on other data: published=all shows them" in done.stdout
    files = {path.name: path.read_text() for path in tmp_path.glob("leaderboard.*")}
    assert files.keys() == {f"leaderboard.{end}" for end in ("md", "csv", "tex", "html")}
    assert "## digits: generate" in files["leaderboard.md"]
    assert r"\toprule" in files["leaderboard.tex"]
    assert files["leaderboard.html"].startswith("<!doctype html>")
    assert {line["job"] for line in csv.DictReader(files["leaderboard.csv"].splitlines())} >= {
        "generate",
        "reconstruct",
        "published",
    }
    assert not list(tmp_path.glob(".*.tmp"))


def test_published_figures_are_shown_beside_those_of_the_same_data(run, make, tmp_path):
    records.write(make(data="celebahq256"), tmp_path / "records")
    assert "As published: VMAE and others, generation by LightningDiT-B (celebahq256)" in run(cwd=tmp_path).stdout
    assert "As published" not in run("published=none", cwd=tmp_path).stdout
    assert "published" not in (tmp_path / "leaderboard.csv").read_text()
    assert run("published=all", cwd=tmp_path).stdout.count("As published: ") > 15


def test_two_records_are_compared_field_by_field(run, refused, make, tmp_path):
    one = make()
    fields = dict(one.protocol) | {"latent": "sample"}
    two = make(tokenizer="vavae", protocol=fields | {"hash": protocol_hash(fields)})
    for record in (one, two):
        records.write(record, tmp_path / "records")
    names = [f"reconstruct-{record.id[:9]}" for record in (one, two)]
    text = run(f"compare=[{','.join(names)}]", cwd=tmp_path).stdout
    assert [line.split() for line in text.splitlines() if "protocol.latent" in line] == [
        ["protocol.latent", "mean", "sample"]
    ]
    assert "They were measured under different conditions: they are never ranked together." in text
    assert "psnr" not in text, "fields that do not differ are not shown"
    assert not list(tmp_path.glob("leaderboard.*"))
    assert "not ranked together. They differ in protocol.latent: mean and sample" in refused("rank=psnr", cwd=tmp_path)
    assert "#1" in run("rank=psnr", f"only=[{names[0]}]", cwd=tmp_path).stdout


def test_ranks_of_one_protocol_are_listed_best_first(run, make, tmp_path):
    for index, tokenizer in enumerate(("maetok", "vavae", "vmae")):
        records.write(make(tokenizer=tokenizer, metrics={"rfd_digits": 3.0 - index}), tmp_path / "records")
    tokenizers = [line.split()[1] for line in run("rank=rfd_digits", cwd=tmp_path).stdout.splitlines() if "#" in line]
    assert tokenizers == ["vmae", "vavae", "maetok"]


def test_merging_adds_other_peoples_records_to_the_tables(run, refused, make, tmp_path):
    records.write(make(), tmp_path / "records")
    other = records.write(make(tokenizer="vavae"), tmp_path / "other")
    text = run("merge=other", cwd=tmp_path)
    assert "Merged 1 new record of other into records." in text.stdout
    assert "vavae" in text.stdout
    other.write_text(other.read_text().replace('"value": 40.0', '"value": "forty"'))
    assert f"{other.name}: metrics.psnr.value must be a number, 'inf' or '-inf'; got 'forty'" in refused(
        "merge=other", cwd=tmp_path
    )
    assert len(store_of(tmp_path)) == 2


def test_a_record_that_cannot_be_shown_is_left_out_with_a_warning(run, make, tmp_path):
    records.write(make(), tmp_path / "records")
    odd = records.write(make(tokenizer="vavae", metrics={"a/k=1": 1.0}), tmp_path / "records")
    odd.write_text(odd.read_text().replace("a/k=1", "a/k=1e999"))
    done = run("published=none", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"Left out: records/{odd.name}: metrics must have points at numbers of at most" in done.stdout + done.stderr
    assert "vmae" in done.stdout
    assert "vavae" not in (tmp_path / "leaderboard.html").read_text()


def test_a_bot_validates_a_folder_by_the_exit_status(run, make, tmp_path):
    path = records.write(make(), tmp_path / "theirs")
    assert run("validate=theirs", cwd=tmp_path).stdout == "1 record valid.\n", "and needs no records of its own"
    path.write_text(path.read_text().replace('"value": 40.0', '"value": "forty"'))
    done = run("validate=theirs", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        f"{path.name}: metrics.psnr.value must be a number, 'inf' or '-inf'; got 'forty'.",
        "1 fault in 1 record.",
    ]
    assert not done.stderr


def test_a_space_is_a_folder_that_is_replaced_as_a_whole(run, refused, store, tmp_path):
    assert "Written: ./space, a static folder" in run("export=space", cwd=tmp_path).stdout
    files = {path.name for path in (tmp_path / "space").iterdir()}
    assert files == {
        *("README.md", "index.html", "leaderboard.md", "leaderboard.csv"),
        ".nojekyll",
        "manifest.json",
        "records",
    }
    assert not list(tmp_path.glob("leaderboard.*"))
    merged = run("merge=space/records", f"paths.root={tmp_path}/other", cwd=tmp_path)
    assert merged.returncode == 0
    assert (tmp_path / "other" / "leaderboard.csv").read_text() == (tmp_path / "space" / "leaderboard.csv").read_text()
    assert run("export=space", cwd=tmp_path).returncode == 0
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("mine")
    assert "site has files and was not written by export=space" in refused("export=space", "space=site", cwd=tmp_path)


def test_saved_images_become_sheets_that_are_the_same_each_time(run, make, tmp_path):
    for level, tokenizer in ((1, "vmae"), (30, "vavae")):
        pairs = {f"{i:06d}": (gray(100), gray(100 + level + i)) for i in range(4)}
        save_reconstructions(tmp_path / "records", make(tokenizer=tokenizer), pairs)
        drawn = make(job="generate", tokenizer=tokenizer, generator="sit", protocol=GENERATION, metrics={"gfid": 1.0})
        samples = {("cat", index): gray(level + index) for index in range(2)}
        save_samples(tmp_path / "records", drawn, samples, {"seed": 0, "num_tokens": 4, "channels": 2})
    for kind in ("reconstructions", "samples"):
        names = [word for word in run(f"sheet={kind}", "rows=2", cwd=tmp_path).stdout.split() if word.endswith(".png")]
        (path,) = tmp_path.glob(f"leaderboard.{kind}-digits-*.png")
        assert names == [path.name]
        before = path.read_bytes()
        run(f"sheet={kind}", "rows=2", f"out={tmp_path}/again", cwd=tmp_path)
        assert (tmp_path / "again" / path.name).read_bytes() == before
        run(f"sheet={kind}", "rows=1", cwd=tmp_path)
        assert path.read_bytes() != before
    assert not list(tmp_path.glob("leaderboard.html")), "a sheet is all that was asked for"
    run(cwd=tmp_path)
    page = (tmp_path / "leaderboard.html").read_text()
    assert '"kind":"reconstructions"' in page
    assert '"kind":"samples"' in page


def test_a_sheet_of_named_records_has_these_alone(run, refused, make, tmp_path):
    made = [make(tokenizer=name) for name in ("a", "b", "c")]
    for record in made:
        save_reconstructions(tmp_path / "records", record, {"0": (gray(1, 128), gray(2, 128))})
    named = [f"reconstruct-{record.id[:9]}" for record in made[:2]]
    whole = sheet_of(run("sheet=reconstructions", cwd=tmp_path).stdout, tmp_path)
    two = sheet_of(run("sheet=reconstructions", f"only=[{','.join(named)}]", "out=two", cwd=tmp_path).stdout, tmp_path)
    assert whole.width - two.width == 2 * (128 + 2), "an image and its error map"
    crop = sheet_of(run("sheet=reconstructions", "crop=[0,0,64]", cwd=tmp_path).stdout, tmp_path)
    assert crop.width - whole.width == 128 + 2, "the whole original and its crop"
    assert "ends at row 164" in refused("sheet=reconstructions", "crop=[100,0,64]", cwd=tmp_path)


def gray(level: int, side: int = 8) -> np.ndarray:
    return np.full((side, side, 3), level, dtype=np.uint8)


def sheet_of(output: str, folder: Path) -> Image.Image:
    return Image.open(folder / output.split()[-1])


def store_of(folder: Path) -> list[records.Record]:
    return store.read_all(folder / "records")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["published=some"], "published must be one of beside, all, none, got 'some'"),
        (["wandb=on"], "wandb must be one of null, offline, online, got 'on'"),
        (["compare=[a]"], "compare takes two records"),
        (["compare=a"], "compare takes two records"),
        (["only=[a]"], "Name a metric, as in rank=psnr"),
        (["only=a", "rank=psnr"], "only takes a list of records"),
        (["sheet=pictures"], "sheet must be one of null, reconstructions, samples, got 'pictures'"),
        (["sheet=samples", "rank=psnr"], "rank and sheet exclude each other. Set one at a time"),
        (["sheet=reconstructions"], "ldbench.run job=reconstruct tokenizer=vmae job.save_images=true, with the"),
        (["sheet=samples"], "job=generate tokenizer=vmae generator=sit job.save_images=true, with the"),
        (["sheet=samples", "crop=auto"], "Add that, or leave crop out"),
        (["rows=0"], "rows must be a whole number of at least 1, got 0"),
        (["sheet=reconstructions", "crop=[1,2]"], "as crop=[64,96,64]; got [1, 2]"),
        (["compare=[a,b]", "rank=psnr"], "Set one at a time"),
        (["validate=nowhere"], "There are no records in nowhere: validate=DIR takes"),
        (["validate=records", "rank=psnr"], "rank and validate exclude each other"),
        (["export=page"], "export must be one of null, space, got 'page'"),
        (["merge=nowhere"], "There are no records in nowhere"),
        (["rank=loudness"], "No record has loudness. Metrics: psnr, rfd_digits."),
        (["rank=psnr", "only=[zz]"], "There is no record 'zz' among 1"),
        (["compere=[a,b]"], "Did you mean compare?"),
    ],
)
def test_a_mistake_is_refused_with_what_to_do(refused, make, tmp_path, overrides, message):
    records.write(make(), tmp_path / "records")
    assert message in refused(*overrides, cwd=tmp_path)


def test_without_records_the_command_for_the_first_ones_is_named(refused, tmp_path):
    assert "Run python -m ldbench.train for the first ones" in refused(cwd=tmp_path)


def test_no_model_is_opened_and_no_torch_is_loaded(store, tmp_path):
    script = (
        "import sys; sys.argv = ['leaderboard', 'hydra.job.chdir=false']; "
        "import ldbench.leaderboard; ldbench.leaderboard.main(); "
        "print([name for name in ('torch', 'lightning', 'wandb', 'sklearn', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
