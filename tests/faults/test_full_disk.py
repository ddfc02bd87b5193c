"""A full disk in the middle of a stage: an error with advice, no partial files, and the same end with more space."""

import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.faults import outcome
from tests.faults.processes import run, watch
from tests.faults.stages import STAGES, Made

ROOMY = 1 << 27  # bytes of the disk
SHARES = (0.1, 0.35, 0.6, 0.85)  # of what a stage writes, that the disk takes
BALLAST = "ballast"
SHORTEST = 3000  # bytes of a file that a limit is set below: logs are shorter
LIMITS = 3

NAMES = [stage.name for stage in STAGES]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={ROOMY}", "tmpfs", str(folder)], capture_output=True, check=False
    ).returncode:
        pytest.skip("only root may mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


def fill(disk: Path, leave: int = 0) -> None:
    """Takes all room of a disk, but for so many bytes."""
    stat = os.statvfs(disk)
    with (disk / BALLAST).open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, stat.f_bavail * stat.f_frsize - leave))


def written(made: Made) -> int:
    """The bytes of whole pages that a stage adds to a root."""
    sizes = {
        name: -(-(made.after / name).lstat().st_size // 4096) * 4096 for name in outcome.names(made.after) - made.found
    }
    return sum(sizes.values())


def filled_at(work: Callable[[], object], disk: Path, root: Path, touch: str) -> Callable[[], object]:
    """Work on a disk that fills as a certain file is about to be opened for writing, for the first time."""

    def told(seen: str) -> None:
        if seen == touch and not (disk / BALLAST).exists():
            fill(disk)

    return lambda: (watch(root, told), work())


def limited(work: Callable[[], object], size: int) -> Callable[[], object]:
    """Work in which no file may grow beyond so many bytes."""
    return lambda: (resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)), work())


def refusal(made: Made, work: Callable[[], object], root: Path, log: Path) -> str | None:
    """The file that a full disk did not take, as the command tells it; None where all had room.

    Nothing half written may be left.
    """
    log.unlink(missing_ok=True)
    if (status := run(work, root, log)) == 0:
        return None
    said = log.read_text().strip().splitlines()[-1]
    assert status == 2, log.read_text()
    assert "Free some space, or choose another folder with paths.root=DIR." in said
    assert str(root) in said
    scratch = [path for path in root.rglob(".*") if not outcome.is_lock_or_marker(path)]
    assert scratch == [], said
    assert not list(root.rglob("*.tmp")), said
    return said.partition(": ")[0].partition(" cannot be written")[0].removeprefix(f"{root}/")


def mended(made: Made, root: Path, log: Path) -> None:
    """The same command, once there is room."""
    status = run(made.work(root=root), root, log)
    assert status == 0, log.read_text()
    assert outcome.differing(made.outcome, outcome.of(root)) == []


@pytest.mark.parametrize("stage", NAMES)
def test_a_disk_that_fills_in_a_stage_costs_nothing_that_was_done(
    stage: str, made: dict[str, Made], disk: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    one, root, refused, starts = made[stage].done, disk / "root", [], 0
    for place in (*SHARES, *sorted(touch for touch in one.touches if touch.startswith("open "))):
        one.lay_out(root)
        if isinstance(place, float):
            fill(disk, leave=int(place * written(one)))
            work = one.work(root=root)
        else:
            work = filled_at(one.work(root=root), disk, root, place)
        starts += 1
        if (file := refusal(one, work, root, tmp_path / "log")) is not None:
            refused.append(file)
        (disk / BALLAST).unlink(missing_ok=True)
        mended(one, root, tmp_path / "log")
        shutil.rmtree(root)
    assert len(refused) >= len(SHARES), refused
    told = ", ".join(sorted(set(refused)))
    record_property("line", f"full disk  {stage}: {starts} starts, {len(refused)} refused, all mended; refused: {told}")


@pytest.mark.parametrize("stage", NAMES)
def test_files_that_may_not_grow_are_told_and_cost_nothing_that_was_done(
    stage: str, made: dict[str, Made], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    one, root, refused = made[stage].done, made[stage].root, []
    sizes = sorted(
        {
            (one.after / name).lstat().st_size
            for name in outcome.names(one.after) - one.found
            if (one.after / name).is_file()
        }
    )
    longest = [size for size in sizes if size >= SHORTEST]
    for size in longest[:: max(1, len(longest) // LIMITS)][:LIMITS] or sizes[-1:]:
        one.lay_out()
        refused.append(refusal(one, limited(one.work(), size - 1), root, tmp_path / "log"))
        mended(one, root, tmp_path / "log")
    assert None not in refused
    record_property(
        "line",
        f"file limit {stage}: {len(refused)} starts, all refused, all mended; refused: "
        f"{', '.join(sorted(set(refused)))}",
    )
