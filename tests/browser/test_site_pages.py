"""The documentation site in a real browser: nothing is fetched, nothing is too wide for a phone, light and dark."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests import built_site
from tests.browser.conftest import Browser

pytest.importorskip("mkdocs", reason="pip install 'ldbench[docs]'")
pytest.importorskip("mkdocstrings", reason="pip install 'ldbench[docs]'")
pytestmark = pytest.mark.browser

PAGES = (  # one of each kind
    *("index", "generators", "tutorials/on-a-cluster", "concepts/latents", "statistics", "fashion-mnist"),
    *("reference/commands", "reference/config/loss", "reference/api/ldbench.objectives"),
)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_fits_a_phone_and_fetches_nothing(
    browser: Browser, made_once: Callable[[str, Callable[[Path], object]], Path], page: str
) -> None:
    site = made_once("site", built_site.build)
    browser.view(width=420, scheme="dark")
    browser.open(site / f"{page}.html")
    assert browser.run("document.documentElement.scrollWidth") == 420
    assert browser.run("document.body.dataset.mdColorScheme") == "slate"
    assert all(url.startswith("file://") for url in browser.requests())
