"""Boards: one for each way of measuring, a row for each model, the mean over its seeds."""

from dataclasses import replace

import pytest

from ldbench.results import store as stores
from ldbench.results.leaderboards import build_leaderboards
from ldbench.results.records import Record, protocol_hash


def test_a_matrix_makes_a_board_for_each_job(store):
    boards = build_leaderboards(stores.read_all(store))
    assert [board.conditions.job for board in boards] == [
        "generate",
        "reconstruct",
        "gmm",
        "probe",
        "smoothness",
        "throughput",
    ]
    generate, reconstruct = boards[:2]
    assert generate.generates
    assert [row.model.label for row in generate.rows][:4] == [
        "maetok + dit",
        "maetok + lightningdit",
        "maetok + sit",
        "vavae + dit",
    ]
    assert len(generate.rows) == 9
    assert all(row.cells["gfd_digits"].summary.seeds == 2 for row in generate.rows)
    assert [row.cells["psnr"].rank.position for row in reconstruct.rows] == [3, 2, 1]
    assert list(reconstruct.columns) == ["psnr", "ssim", "rfd_digits"]


def test_points_of_curves_are_no_columns_and_not_ranked(store):
    (board,) = (board for board in build_leaderboards(stores.read_all(store)) if board.conditions.job == "smoothness")
    assert board.columns == ["smoothness/slope"]
    assert all(row.cells["smoothness/psnr/eps=0.1"].rank is None for row in board.rows)


def test_two_protocols_make_two_boards(make):
    one = make()
    fields = dict(one.protocol) | {"latent": "sample"}
    other = make(tokenizer="vavae", protocol=fields | {"hash": protocol_hash(fields)})
    boards = build_leaderboards([one, other])
    assert len(boards) == 2
    assert all(row.cells["psnr"].rank.position == 1 for board in boards for row in board.rows)


def test_of_one_measurement_done_twice_the_later_one_counts(make):
    old, new = make(metrics={"psnr": 30.0}), make(metrics={"psnr": 31.0}, created="2026-12-01T00:00:00+00:00")
    assert old.id != new.id
    ((row,),) = (board.rows for board in build_leaderboards([new, old]))
    assert row.cells["psnr"].summary.value == 31.0
    assert row.cells["psnr"].summary.seeds == 1
    assert row.superseded == 1


def test_numbers_of_one_seed_are_of_one_machines_weights(make):
    """One recipe gives other weights on another machine: generators on one tokenizer are not averaged with others'."""
    cell = {"job": "generate", "generator": "sit"}
    first = [
        make(**cell, seeds=(0, seed), metrics={"gfd_digits": 1.0 + seed / 10}, created="2026-11-01T00:00:00+00:00")
        for seed in range(3)
    ]
    second = make(**cell, metrics={"gfd_digits": 9.0}, machine="second", created="2026-12-01T00:00:00+00:00")
    ((row,),) = (board.rows for board in build_leaderboards([*first, second]))
    assert (row.cells["gfd_digits"].summary.value, row.cells["gfd_digits"].summary.seeds) == (9.0, 1)
    assert row.superseded == 3
    other_seed = make(**cell, seeds=(1, 0), metrics={"gfd_digits": 3.0})
    ((row,),) = (board.rows for board in build_leaderboards([*first, second, other_seed]))
    assert (row.cells["gfd_digits"].summary.value, row.cells["gfd_digits"].summary.seeds) == (6.0, 2)


def test_several_samplings_of_a_generator_are_averaged_and_are_no_seeds_of_it(make):
    def sampled(seed: int, *, generator_seed: int = 0, value: float) -> Record:
        record = make(
            job="generate",
            generator="sit",
            seeds=(0, generator_seed),
            metrics={"gfd_digits": (value, value - 0.2, value + 0.2)},
            created=f"2026-11-0{1 + seed}T00:00:00+00:00",
        )
        return replace(record, config={**record.config, "seed": seed})

    records = [sampled(seed, value=1.0 + seed) for seed in range(3)]
    ((row,),) = (board.rows for board in build_leaderboards(records))
    summary = row.cells["gfd_digits"].summary
    assert (summary.value, summary.seeds, summary.spread, row.superseded) == (2.0, 1, None, 0)
    assert len(row.cells["gfd_digits"].estimates) == 3
    other = sampled(1, generator_seed=1, value=4.0)
    ((row,),) = (board.rows for board in build_leaderboards([*records, other]))
    assert (row.cells["gfd_digits"].summary.value, row.cells["gfd_digits"].summary.seeds) == (3.0, 2)


def test_a_row_may_lack_a_metric_that_others_have(make):
    ((one, other),) = (
        board.rows
        for board in build_leaderboards([make(metrics={"psnr": 3.0}), make(tokenizer="wae", metrics={"ssim": 0.5})])
    )
    assert "ssim" not in one.cells
    assert other.cells["ssim"].rank.position == 1


@pytest.mark.parametrize("value", [None, 3, [], "word"])
def test_a_config_of_anybody_breaks_nothing(make, value):
    odd = replace(make(), config={"job": value, "jobs": value, "tokenizer": value, "seed": value})
    assert len(build_leaderboards([odd])) == 1
