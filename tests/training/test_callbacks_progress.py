"""Progress: a panel on a terminal with stage, rate, remaining time and metrics, lines elsewhere, and nothing left."""

import io
import logging
import sys
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from ldbench.training import callbacks_progress
from ldbench.training.callbacks_progress import Progress


class Clock:
    """A clock that advances by a second with each reading."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        self.now += 1
        return self.now


@pytest.fixture
def training(monkeypatch):
    """A training of ten steps, of which `steps` are done."""
    monkeypatch.setattr(callbacks_progress, "time", Clock())
    stage = SimpleNamespace(name="decoder", max_steps=10)
    module = SimpleNamespace(stage=stage, steps=0, completed_step=True, log_is_due=True)
    trainer = SimpleNamespace(is_global_zero=True, callback_metrics={"train/mse": torch.tensor(0.25)})
    return trainer, module


def advance(progress, training, steps):
    trainer, module = training
    for step in range(1, steps + 1):
        module.steps = step
        progress.on_train_batch_end(trainer, module, {"loss": torch.tensor(0.5)}, None, step)


def shown(panel) -> str:
    text = io.StringIO()
    Console(file=text, width=100).print(panel)
    return text.getvalue()


def test_a_terminal_shows_one_panel_which_is_removed(training, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = Progress()
    progress.on_train_start(*training)
    advance(progress, training, 5)
    text = shown(progress.panel.renderable)
    assert "decoder" in text
    assert "step 5 of 10, " in text
    assert " steps/s, " in text
    assert " left │" in text
    assert "train/mse  0.25" in text
    progress.on_train_end(*training)
    assert progress.panel is None


def test_an_error_removes_the_panel_too(training, monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    sys.stderr.isatty = lambda: True
    progress = Progress()
    progress.on_train_start(*training)
    progress.on_exception(*training, KeyboardInterrupt())
    assert progress.panel is None


def test_elsewhere_lines_are_logged_every_quarter_of_a_minute_and_at_the_end(training, monkeypatch, caplog):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with caplog.at_level(logging.INFO):
        progress = Progress()
        progress.on_train_start(*training)
        advance(progress, training, 10)
    assert progress.panel is None
    assert [record.getMessage().split(", loss")[0] for record in caplog.records] == ["  decoder: step 10 of 10"]
