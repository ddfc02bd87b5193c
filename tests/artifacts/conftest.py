"""A local stand-in for the Hugging Face hub."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from tests.artifacts.hub_server import Hub, turn_to


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A local hub whose token is set, with an empty cache."""
    running = Hub()
    thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    turn_to(running.url, monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # large files over git LFS, which the server implements
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.setenv("HF_TOKEN", running.token)
    yield running
    running.shutdown()
    running.server_close()
    thread.join()
