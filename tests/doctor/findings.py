"""What tests of the doctor ask of a check."""

from pathlib import Path

from ldbench.checks import storage
from ldbench.checks.finding import Finding


def only(findings: list[Finding], level: str) -> Finding:
    """The one finding of a check, at this level, with a cure unless it is well."""
    (found,) = findings
    assert found.level == level, found
    assert "\n" not in found.what
    assert level == "ok" or found.cure
    return found


def artifact_findings(root: Path) -> list[Finding]:
    """What the doctor says of the artifacts, and of what trainings left."""
    return storage.check_artifacts(root / "artifacts", root / "runs")
