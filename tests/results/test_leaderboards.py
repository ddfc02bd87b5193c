"""Boards: one for each way of measuring, a row for each model, the mean over its seeds."""

from dataclasses import replace

import pytest

from ldbench.results import store as stores
from ldbench.results.leaderboards import build_leaderboards
from ldbench.results.records import protocol_hash


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
    assert list(reconstruct.columns) == ["psnr", "ssim", "rfd_digits", "rfd_digits_floor"]


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
