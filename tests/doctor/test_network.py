"""Services that the doctor is asked to reach: answers, refusals, silence, and addresses that are none."""

import socket

import pytest

from ldbench.checks import network


@pytest.mark.parametrize(("name", "variable"), [("wandb", "WANDB_BASE_URL"), ("hub", "HF_ENDPOINT")])
@pytest.mark.parametrize(("status", "level"), [(200, "ok"), (404, "ok"), (401, "ok"), (503, "warning")])
def test_a_service_that_answers_is_reached(
    name: str, variable: str, status: int, level: str, server, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, asked, answer = server
    answer["status"] = status
    monkeypatch.setenv(variable, address)
    (found,) = network.check_reach(name)
    assert (found.level, found.subject) == (level, "reach")
    assert address in found.what
    assert len(asked) == 1


def test_a_service_that_does_not_answer_is_broken_with_what_works_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:  # bound, without a listener
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
        (found,) = network.check_reach("wandb")
    assert found.level == "broken"
    assert "refused" in found.what
    assert "wandb=offline" in found.cure


def test_a_silent_service_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        (found,) = network.check_reach("hub", timeout=0.2)
    assert (found.level, "cannot be reached within 0.2 s" in found.what) == ("broken", True)


@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://127.0.0.1", "localhost"])
def test_an_invalid_address_is_not_opened(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", address)
    (found,) = network.check_reach("hub")
    assert "is not a web address" in found.what
