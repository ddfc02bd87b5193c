"""Which step of a sweep begins when."""

from ldbench.sweeps.points import Point, SweepNeeds
from ldbench.sweeps.schedule import DONE, FAILED, RUNNING, WAITING, Schedule, SweepTask


def point(label: str, tokenizer: str | None, *, latents: bool = True) -> Point:
    return Point([f"word={label}"], label, SweepNeeds(tokenizer, f"name-{tokenizer}", latents))


def grid() -> Schedule:
    return Schedule.of([point(f"{tokenizer}{cell}", tokenizer) for tokenizer in "ab" for cell in (1, 2, 3)])


def begin(waves: Schedule) -> SweepTask:
    step = waves.next()
    assert step is not None
    step.state = RUNNING
    return step


def test_each_tokenizer_is_a_step_of_its_own_before_the_points_that_need_it() -> None:
    waves = grid()
    assert [step.name for step in waves.steps] == ["tokenizer-name-a", "tokenizer-name-b", "0", "1", "2", "3", "4", "5"]
    assert [begin(waves).label, begin(waves).label] == ["tokenizer name-a", "tokenizer name-b"]
    assert waves.next() is None
    waves.end(waves.steps[1], None)
    assert begin(waves).label == "b1"


def test_points_of_other_tokenizers_go_first() -> None:
    waves = grid()
    for step in (begin(waves), begin(waves)):
        waves.end(step, None)
    assert [begin(waves).label for _ in range(6)] == ["a1", "b1", "a2", "b2", "a3", "b3"]


def test_a_point_with_a_tokenizer_of_its_own_builds_it_itself() -> None:
    waves = Schedule.of([point("alone", "a"), point("none", None), point("neither", None)], start=4)
    assert [(step.name, step.after) for step in waves.steps] == [("4", None), ("5", None), ("6", None)]


def test_the_words_of_what_is_shared_are_those_of_a_point_that_wants_latents() -> None:
    waves = Schedule.of([point("probe", "a", latents=False), point("gmm", "a")])
    assert waves.steps[0].overrides == ["word=gmm"]


def test_two_places_with_tokenizers_of_one_name_have_logs_of_their_own() -> None:
    points = [
        Point([], f"{place}{cell}", SweepNeeds(f"{place}/vmae", "vmae", latents=True))
        for place in ("x", "y")
        for cell in (1, 2)
    ]
    names = [step.name for step in Schedule.of(points).steps]
    assert len(set(names)) == len(names) == 6


def test_a_tokenizer_that_fails_fails_its_points_and_no_others() -> None:
    waves = grid()
    lost = waves.end(begin(waves), "no disk")
    assert [step.label for step in lost] == ["a1", "a2", "a3"]
    assert {step.reason for step in lost} == {"its tokenizer failed: no disk"}
    assert (waves.count(FAILED), waves.count(WAITING), waves.count(DONE)) == (4, 4, 0)
    waves.end(begin(waves), None)
    assert begin(waves).label == "b1"


def test_a_point_that_fails_fails_alone() -> None:
    waves = grid()
    for step in (begin(waves), begin(waves)):
        waves.end(step, None)
    assert waves.end(begin(waves), "lost") == []
    assert waves.count(FAILED) == 1
