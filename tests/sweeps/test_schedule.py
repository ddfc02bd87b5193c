"""The order in which the tasks of a sweep start."""

from ldbench.sweeps.points import Point, SweepNeeds
from ldbench.sweeps.schedule import DONE, FAILED, RUNNING, WAITING, Schedule, SweepTask


def point(label: str, tokenizer: str | None, *, latents: bool = True) -> Point:
    return Point([f"key={label}"], label, SweepNeeds(tokenizer, f"name-{tokenizer}", latents))


def grid() -> Schedule:
    return Schedule.of([point(f"{tokenizer}{cell}", tokenizer) for tokenizer in "ab" for cell in (1, 2, 3)])


def start(schedule: Schedule) -> SweepTask:
    task = schedule.next()
    assert task is not None
    task.state = RUNNING
    return task


def test_each_shared_tokenizer_is_a_task_before_the_points_that_need_it() -> None:
    schedule = grid()
    assert [task.name for task in schedule.tasks] == [
        "tokenizer-name-a",
        "tokenizer-name-b",
        "0",
        "1",
        "2",
        "3",
        "4",
        "5",
    ]
    assert [start(schedule).label, start(schedule).label] == ["tokenizer name-a", "tokenizer name-b"]
    assert schedule.next() is None
    schedule.end(schedule.tasks[1], None)
    assert start(schedule).label == "b1"


def test_points_of_other_tokenizers_go_first() -> None:
    schedule = grid()
    for task in (start(schedule), start(schedule)):
        schedule.end(task, None)
    assert [start(schedule).label for _ in range(6)] == ["a1", "b1", "a2", "b2", "a3", "b3"]


def test_a_point_with_a_tokenizer_of_its_own_builds_it_itself() -> None:
    schedule = Schedule.of([point("alone", "a"), point("none", None), point("neither", None)], start=4)
    assert [(task.name, task.depends_on) for task in schedule.tasks] == [("4", None), ("5", None), ("6", None)]


def test_the_overrides_of_a_shared_task_are_those_of_a_point_that_needs_latents() -> None:
    schedule = Schedule.of([point("probe", "a", latents=False), point("gmm", "a")])
    assert schedule.tasks[0].overrides == ["key=gmm"]


def test_tokenizers_of_one_name_in_two_folders_have_separate_logs() -> None:
    points = [
        Point([], f"{folder}{cell}", SweepNeeds(f"{folder}/vmae", "vmae", latents=True))
        for folder in ("x", "y")
        for cell in (1, 2)
    ]
    names = [task.name for task in Schedule.of(points).tasks]
    assert len(set(names)) == len(names) == 6


def test_a_tokenizer_that_fails_fails_its_points_and_no_others() -> None:
    schedule = grid()
    lost = schedule.end(start(schedule), "no disk")
    assert [task.label for task in lost] == ["a1", "a2", "a3"]
    assert {task.reason for task in lost} == {"its tokenizer failed: no disk"}
    assert (schedule.count(FAILED), schedule.count(WAITING), schedule.count(DONE)) == (4, 4, 0)
    schedule.end(start(schedule), None)
    assert start(schedule).label == "b1"


def test_a_point_that_fails_fails_alone() -> None:
    schedule = grid()
    for task in (start(schedule), start(schedule)):
        schedule.end(task, None)
    assert schedule.end(start(schedule), "lost") == []
    assert schedule.count(FAILED) == 1
