"""Job `small_generator`: from a tokenizer to a record of its loss."""

import pytest

import ldbench
from ldbench.pipeline import pipeline
from ldbench.results import per_image, records


@pytest.mark.trains
def test_it_measures_a_tokenizer_reproducibly(small_overrides: list[str], tmp_path) -> None:
    settings = [
        "job=small_generator",
        "job.budget.steps=3",
        "job.budget.width=8",
        "job.num_images=50",
        f"paths.root={tmp_path}",
        "force=true",
    ]
    found = []
    for _ in range(2):
        pipeline.run(ldbench.compose("run", [*small_overrides, *settings]))
        (path,) = (tmp_path / "records").glob("small_generator-*.json")
        found.append(records.read(path).metrics)
    assert found[0] == found[1]
    loss = found[0]["small_generator/heldout_loss"]
    assert 0.5 < loss.low < loss.value < loss.high < 4
    values = per_image.read_values(path.parent, records.read(path))["small_generator/heldout_loss"]
    assert (len(values), values.mean()) == (50, pytest.approx(loss.value))
    assert set(found[0]) == {f"small_generator/{name}" for name in ("heldout_loss", "train_loss", "explained")}


@pytest.mark.parametrize(
    ("settings", "message"),
    [("job.num_images=1", "job.num_images"), ("job.budget.width=9", "num_heads=4 does not divide")],
)
def test_settings_out_of_range_are_refused_before_any_work(
    small_overrides: list[str], tmp_path, settings: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pipeline.run(
            ldbench.compose("run", [*small_overrides, "job=small_generator", settings, f"paths.root={tmp_path}"])
        )
    assert not list(tmp_path.iterdir())
