"""A training on one batch over and over says how far its loss fell, and warns if that is not far."""

import logging
from types import SimpleNamespace

import pytest
import torch

from ldbench.training.callbacks_overfit import OverfitReport


def report(losses, caplog, rank_zero=True):
    callback = OverfitReport()
    module = SimpleNamespace(stage=SimpleNamespace(name="tune"), completed_step=True)
    trainer = SimpleNamespace(is_global_zero=rank_zero)
    with caplog.at_level(logging.INFO):
        for step, loss in enumerate(losses):
            callback.on_train_batch_end(trainer, module, {"loss": torch.tensor(loss)}, None, step)
        callback.on_train_end(trainer, module)
    return caplog.records


def test_a_loss_that_falls_is_reported_with_its_means(caplog):
    (record,) = report([2.0] * 10 + [1.0] * 5 + [0.25] * 10, caplog)
    assert record.levelno == logging.INFO
    assert record.message.strip() == (
        "tune: the loss on the same batches went from 2 to 0.25 (means of 10 steps), as it should."
    )


@pytest.mark.parametrize("end", [0.6, 1.0, 3.0, float("nan")])
def test_a_loss_that_hardly_falls_is_a_warning(caplog, end):
    (record,) = report([1.0] * 10 + [end] * 10, caplog)
    assert record.levelno == logging.WARNING
    assert "It has to fall further" in record.message


def test_a_few_steps_and_other_processes_say_nothing(caplog):
    assert not report([1.0] * 9, caplog)
    assert not report([1.0] * 20, caplog, rank_zero=False)
