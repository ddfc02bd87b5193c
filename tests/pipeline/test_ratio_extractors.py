"""The extractors of FDr in a protocol: hashed where samples are compared, by their weights, and checked."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import ldbench
from ldbench.config.compose import Registry
from ldbench.pipeline import measure
from ldbench.pipeline.job_context import required_inputs
from ldbench.pipeline.measurement_checks import validate_protocol
from ldbench.pipeline.pipeline import get_protocol

DATA = SimpleNamespace(fingerprint="0" * 64)


def described(job: str, *overrides: str) -> dict[str, Any]:
    words = [f"job={job}", "generator=sit", *(["job.samples=x"] if job == "evaluate" else []), *overrides]
    cfg = ldbench.compose("run", words)
    protocol, node = measure.merge_overrides(cfg.job, get_protocol(cfg))
    return measure.describe(cfg, DATA, protocol, required_inputs(node), Registry())


@pytest.mark.parametrize("job", ["generate", "evaluate"])
def test_they_are_hashed_where_samples_are_compared(job: str) -> None:
    plain, more = described(job), described(job, "protocol.ratio_extractors=[digits]")
    assert "ratio_extractors" not in plain
    assert more["ratio_extractors"].keys() == {"digits"}
    assert more["hash"] != plain["hash"]


@pytest.mark.parametrize("job", ["reconstruct", "interpolation"])
def test_they_count_nothing_where_none_are(job: str) -> None:
    assert described(job, "protocol.ratio_extractors=[digits]") == described(job)


def test_their_weights_count_by_content(tmp_path: Path) -> None:
    hashes = []
    for name, content in (("a", "1"), ("b", "1"), ("c", "2")):
        (tmp_path / f"{name}.pt").write_text(content)
        words = ["protocol.ratio_extractors=[mae_l]", f"protocol.weights.mae_l={tmp_path / name}.pt"]
        hashes.append(described("generate", *words)["hash"])
    assert hashes[0] == hashes[1] != hashes[2]


def test_an_unknown_one_is_refused() -> None:
    cfg = ldbench.compose("run", ["job=probe", "protocol.ratio_extractors=[digit]"])
    with pytest.raises(ValueError, match="There is no extractor named 'digit'"):
        validate_protocol(get_protocol(cfg))
