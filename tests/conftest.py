"""Loads the fixtures and hooks of `tests/fixtures.py` in each process that runs tests."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput"):
        return  # this process hands tests to others: torch and Lightning, ten seconds to load, are not needed
    from tests import fixtures

    config.pluginmanager.register(fixtures)
