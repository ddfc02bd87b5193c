"""Helpers of the doctor's tests."""

from pathlib import Path

from ldbench.checks import storage
from ldbench.checks.finding import Finding
from ldbench.config.compose import Registry


def only(findings: list[Finding], level: str) -> Finding:
    """The only finding of a check, at this level, with a cure unless it is ok."""
    (found,) = findings
    assert found.level == level, found
    assert "\n" not in found.what
    assert level == "ok" or found.cure
    return found


def artifact_findings(root: Path) -> list[Finding]:
    """The doctor's findings on artifacts and checkpoints."""
    return storage.check_artifacts(root / "artifacts", root / "runs", Registry())
