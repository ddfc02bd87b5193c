"""Pages of results have the numbers of the records that are in the repository, and no others."""

import pytest

from tests.result_tables import PAGES, ROOT, render


@pytest.mark.parametrize("page", PAGES)
def test_a_pages_tables_are_those_of_its_records(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for table in PAGES[page]:
        assert "\n".join(render(table)) in text, f"Run python -m tests.result_tables {page}, and put them on the page."
