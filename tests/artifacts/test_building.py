"""Building artifacts: one process builds, others wait; where nothing can be written, what exists is used."""

import errno
import logging
import os
import threading
import time

import pytest
from torch import nn

from ldbench.artifacts import store
from ldbench.artifacts.building import building_lock, get_or_build
from ldbench.artifacts.store import Blueprint


def test_a_second_builder_waits_for_the_first_and_logs_it(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    folder, events, holding = tmp_path / "vmae-0123", [], threading.Event()

    def first():
        with building_lock(folder):
            holding.set()
            time.sleep(0.5)
            events.append("first done")

    def second():
        with building_lock(folder):
            events.append("second builds")

    threads = [threading.Thread(target=first)]
    threads[0].start()
    assert holding.wait(5)
    threads.append(threading.Thread(target=second))
    threads[1].start()
    for thread in threads:
        thread.join(10)
    assert events == ["first done", "second builds"]
    assert caplog.messages == ["Another process is building vmae-0123. Waiting for it."]


def test_builders_of_different_artifacts_do_not_wait(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    with building_lock(tmp_path / "a"), building_lock(tmp_path / "b"):
        pass
    assert caplog.messages == []


def test_a_builder_that_fails_releases_the_lock(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    with pytest.raises(ZeroDivisionError), building_lock(tmp_path / "a"):
        raise ZeroDivisionError
    with building_lock(tmp_path / "a"):
        pass
    assert caplog.messages == []


def test_a_lock_may_be_taken_by_every_user(tmp_path):
    previous = os.umask(0o077)
    try:
        with building_lock(tmp_path / "a"):
            assert (tmp_path / ".a.lock").stat().st_mode & 0o777 == 0o666
    finally:
        os.umask(previous)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_what_exists_in_a_folder_that_cannot_be_written_is_used_without_a_lock(tmp_path, monkeypatch, number):
    folder = tmp_path / "vmae-0123"
    store.save(nn.Linear(2, 2), folder, Blueprint("tokenizer", "vmae", {}), recipe={}, digest="0123", provenance={})

    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    digest = store.read_manifest(folder)["digest"]
    settings = {"kind": "Tokenizer", "done": "Trained", "digest": digest, "recipe": {}, "collective": False}
    get_or_build(folder, **settings, build=lambda: pytest.fail("built"))
    monkeypatch.setattr("filelock.FileLock.acquire", lambda *_, **__: (_ for _ in ()).throw(OSError(errno.ENOSPC, "")))
    with pytest.raises(OSError), building_lock(folder):  # noqa: PT011
        pass
