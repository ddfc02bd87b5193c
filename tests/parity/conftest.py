"""The case that a test runs on, and a table of the worst errors at the end."""

from dataclasses import replace

import pytest
from tests.parity.cases import REPORTED, Case, explain_absence


@pytest.fixture
def case(request: pytest.FixtureRequest, record_property) -> Case:
    """One case of the kind that `each_case` names; fails where a given folder has none of that kind."""
    if isinstance(request.param, str):
        pytest.fail(explain_absence(request.param), pytrace=False)
    return replace(request.param, record_property=record_property, compared=set())


def pytest_terminal_summary(terminalreporter):
    """Prints one line per case: the largest error of its outputs and the tolerance, from all processes' reports."""
    reports = [
        report
        for kind in ("passed", "failed")
        for report in terminalreporter.stats.get(kind, [])
        if report.when == "call"
    ]
    found = [value for report in reports for key, value in report.user_properties if key.startswith(REPORTED)]
    worst = {
        case: max((error, bound, output) for name, error, bound, output in found if name == case) for case, *_ in found
    }
    if worst:
        terminalreporter.section("parity: worst error relative to an output's scale")
    for name, (error, bound, output) in sorted(worst.items()):
        terminalreporter.write_line(f"{name:32} {error:.1e}  (allowed {bound:.0e}; {output})")
