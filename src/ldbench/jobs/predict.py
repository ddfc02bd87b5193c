"""Job `predict`: which measurements of tokenizers predict the ranking of their generators.

It reads records only, no models.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from ldbench.analysis.prediction import MIN_PAIRS, Association, associate, holm, mean_ranks
from ldbench.core.estimate import Estimate
from ldbench.io.files import write_json
from ldbench.results.prediction_figure import draw
from ldbench.results.predictions import MEAN_RANK, predictions_by_generator
from ldbench.results.records import Record, encode
from ldbench.results.studies import Study, build_studies

FIGURE, NUMBERS = "prediction.png", "prediction.json"
COUNTS = {"resamples": 100, "permutations": 100}


@dataclass(frozen=True)
class Predictor:
    """A measurement's association with the quality of a generator."""

    association: Association
    p_holm: float | None  # of a measurement that was named in advance, corrected for all such tests; else None


class Predict:
    """The rank correlation of each measurement of tokenizers with the quality of a generator, and for several
    generators also with the mean rank over them, on their common tokenizers.

    Above 0, better values go with better generation; where the records do not declare which values are better, larger
    values do. What was measured of a generator's own sampling, such as the straightness of its paths, is related to
    that generator. Measurements of fewer than five of the tokenizers, and constant ones, are left out. The measurements
    in `predictors`, which were named before looking, are tested where all tokenizers have them: their p-values are
    raised by Holm's rule for all generators and all studies of the records. All others are exploratory: of many, some
    have a small p-value by chance.
    """

    name: ClassVar[str] = "predict"
    revision: ClassVar[int] = 4
    requires: ClassVar[frozenset[str]] = frozenset({"records"})
    settings: ClassVar[tuple[str, ...]] = (
        "target",
        "predictors",
        *COUNTS,
        "seed",
    )  # `exclude` is in the records that are used

    def __init__(
        self,
        *,
        study: Study,
        target: str | None,
        predictors: Sequence[str],  # measurements that are tested
        exclude: Sequence[str],  # names of artifacts; `studies` has left their models out
        resamples: int,
        permutations: int,
        seed: int,
    ):
        assert study.target == target, "a study has one target"
        self.study = study
        self.predictors = frozenset(predictors)
        self.draws = {"resamples": resamples, "permutations": permutations, "seed": seed}

    @staticmethod
    def check(settings: Mapping[str, Any]) -> None:
        """Raises ValueError for settings out of range."""
        for key, minimum in COUNTS.items():
            if settings[key] < minimum:
                raise ValueError(f"job.{key} must be at least {minimum}, got {settings[key]}.")
        for key, what in (("exclude", "artifacts"), ("predictors", "measurements")):
            names = settings[key]
            if isinstance(names, str) or not all(isinstance(name, str) for name in names):
                raise ValueError(f"job.{key} must be a list of names of {what}, got {names!r}.")
        target = settings["target"]
        if target is not None and not isinstance(target, str):
            raise ValueError(
                f"job.target must be the name of a metric of generated images, such as gfd_digits, got {target!r}."
            )

    @staticmethod
    def output_files(settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The files in the output folder without which a recorded measurement is repeated."""
        return (FIGURE, NUMBERS)

    @staticmethod
    def studies(records: Sequence[Record], settings: Mapping[str, Any]) -> list[Study]:
        """The studies that records allow: for each target and protocol, the generators with at least five tokenizers.

        Raises ValueError if there is none, with what exists and what is missing.
        """
        target = settings["target"]
        studies = [
            study
            for study in build_studies(records, target, settings["exclude"])
            if study.target in study.higher_is_better
        ]
        if not studies:
            names = sorted(
                {
                    name
                    for record in records
                    if record.subject["generator"] is not None
                    for name in record.metrics
                    if name in (record.higher_is_better or {})
                }
            )
            known = f" Records of generated images contain {', '.join(names)}." if names else ""
            raise ValueError(
                f"No record contains {target or 'gfid or gfd_<extractor>'} of generated images, and which of its "
                f"values are better.{known} "
                "python -m ldbench.train experiments=predict_digits creates all records that are needed."
            )
        enough = [
            replace(study, quality={name: values for name, values in study.quality.items() if len(values) >= MIN_PAIRS})
            for study in studies
        ]
        enough = [
            study
            for study in enough
            if study.quality and any(varies_in(study, values) for values in study.measured.values())
        ]
        if not enough:
            raise ValueError(
                f"A prediction needs at least {MIN_PAIRS} tokenizers that were measured in the same way, and there are "
                "too few:\n"
                + "\n".join(line for study in studies for line in describe_missing(study))
                + "\nMeasure more tokenizers with the same generator and the same jobs; "
                "python -m ldbench.train experiments=predict_digits does so."
            )
        tests = sum(num_tests(study, settings["predictors"]) for study in enough)
        return [replace(study, num_tests=tests) for study in enough]

    def run(self, out: Path) -> dict[str, Estimate]:
        """All coefficients with intervals, p-values and counts by generator and measurement; writes all numbers as
        JSON and a figure to `out`.
        """
        goals = self.goals()
        predicted = self.corrected({generator: self.associations(generator, goal) for generator, goal in goals.items()})
        metrics = {
            f"predict/{statistic}/{generator}/{measurement}": estimate
            for generator, predictors in predicted.items()
            for measurement, predictor in predictors.items()
            for statistic, estimate in {
                "spearman": predictor.association.spearman,
                "kendall": predictor.association.kendall,
                "p": Estimate(predictor.association.p),
                "smallest_p": Estimate(predictor.association.smallest_p),
                **({} if predictor.p_holm is None else {"p_holm": Estimate(predictor.p_holm)}),
                "tokenizers": Estimate(predictor.association.num),
                "families": Estimate(predictor.association.num_families),
            }.items()
        }
        write_json(out / NUMBERS, self.numbers(goals, predicted))
        draw(
            predictions_by_generator(metrics, self.study.higher_is_better),
            out / FIGURE,
            title=f"{self.study.conditions.data}: what predicts a better {self.study.target}",
        )
        return metrics

    def goals(self) -> dict[str, dict[str, float]]:
        """Generator -> tokenizer -> a number that is larger for better generation; for several generators also their
        mean rank.
        """
        goals = {name: self.oriented(self.study.target, values) for name, values in self.study.quality.items()}
        common = sorted(set.intersection(*(set(goal) for goal in goals.values())))
        if len(goals) > 1 and len(common) >= MIN_PAIRS:
            goals[MEAN_RANK] = dict(
                zip(common, mean_ranks([[goal[name] for name in common] for goal in goals.values()]), strict=True)
            )
        return goals

    def associations(self, generator: str, goal: Mapping[str, float]) -> dict[str, Association]:
        """The association of each measurement with the quality of a generator, or with the mean rank."""
        associations = {}
        for name, values in self.study.predictors_of(generator).items():
            both = sorted(goal.keys() & values.keys())
            sided = self.oriented(name, values)
            x, y = [sided[tokenizer] for tokenizer in both], [goal[tokenizer] for tokenizer in both]
            if varies(x) and varies(y):
                families = [self.study.families[tokenizer] for tokenizer in both]
                associations[name] = associate(x, y, families=families, **self.draws)
        return associations

    def corrected(self, found: Mapping[str, Mapping[str, Association]]) -> dict[str, dict[str, Predictor]]:
        """The associations by generator and measurement, with p-values of those that are tested."""
        tested = {
            (generator, name): association.p
            for generator, associations in found.items()
            for name, association in associations.items()
            if is_tested(name, self.predictors) and association.num == len(self.study.tokenizers)
        }
        elsewhere = max(0, self.study.num_tests - len(tested))
        raised = dict(zip(tested, holm([*tested.values(), *[1.0] * elsewhere])[: len(tested)], strict=True))
        return {
            generator: {
                name: Predictor(association, raised.get((generator, name)))
                for name, association in associations.items()
            }
            for generator, associations in found.items()
        }

    def oriented(self, metric: str, values: Mapping[str, float]) -> dict[str, float]:
        """The values, negated where smaller ones are better."""
        sign = 1 if self.study.higher_is_better.get(metric, True) else -1
        return {tokenizer: sign * value for tokenizer, value in values.items()}

    def numbers(
        self, goals: Mapping[str, Mapping[str, float]], predicted: Mapping[str, Mapping[str, Predictor]]
    ) -> dict[str, Any]:
        """All inputs, results and omissions, for JSON."""
        study = self.study
        return {
            "target": study.target,
            "data": study.conditions.data,
            "protocol": dict(study.conditions.protocol),
            "tokenizers": {name: list(artifacts) for name, artifacts in study.artifacts.items()},
            "quality": for_json(study.quality),
            "measured": for_json(study.measured),
            "sampling": {generator: for_json(measured) for generator, measured in study.sampling.items()},
            "made": {
                name: {"job": made.job, "protocol": made.protocol["hash"], "settings": made.settings}
                for name, made in study.made.items()
            },
            "predictions": {
                generator: {
                    name: {**asdict(predictor.association), "p_holm": predictor.p_holm}
                    for name, predictor in predictors.items()
                }
                for generator, predictors in predicted.items()
            },
            "left_out": {
                generator: {
                    name: reason_left_out(goal, values)
                    for name, values in study.predictors_of(generator).items()
                    if name not in predicted[generator]
                }
                for generator, goal in goals.items()
            },
            "families": dict(study.families),
            "predictors": sorted(self.predictors),
            "tests": study.num_tests,
            "records": sorted(f"{record.job}-{record.id}" for record in study.records),
            **self.draws,
        }


def num_tests(study: Study, predictors: Collection[str]) -> int:
    """The number of tests of a study: its generators, and their mean rank, by the measurements that are tested."""
    goals = [*study.quality, *([MEAN_RANK] if len(study.quality) > 1 else [])]
    return sum(
        is_tested(name, predictors) and values.keys() >= set(study.tokenizers)
        for goal in goals
        for name, values in study.predictors_of(goal).items()
    )


def is_tested(measurement: str, predictors: Collection[str]) -> bool:
    """Whether a measurement was named in advance, whatever the conditions in its name."""
    return measurement.partition(" [")[0] in predictors


def varies(values: Sequence[float]) -> bool:
    """Whether there are enough values, and not all equal."""
    return len(values) >= MIN_PAIRS and len(set(values)) > 1


def varies_in(study: Study, values: Mapping[str, float]) -> bool:
    """Whether a measurement varies over enough tokenizers of a generator of the study."""
    return any(varies([values[name] for name in quality if name in values]) for quality in study.quality.values())


def reason_left_out(goal: Mapping[str, float], values: Mapping[str, float]) -> str:
    """Why a measurement is left out."""
    both = goal.keys() & values.keys()
    if len(both) < MIN_PAIRS:
        return f"{len(both)} of the {len(goal)} tokenizers have it; missing: {', '.join(sorted(goal.keys() - both))}"
    return "the same for all tokenizers, or the quality is"


def describe_missing(study: Study) -> list[str]:
    """Lines on the tokenizers of a study and their missing measurements."""
    lines = []
    jobs = sorted({made.job for made in study.made.values()})
    for generator, quality in study.quality.items():
        where = f"on {study.conditions.data}, protocol {study.conditions.short_name}"
        line = f"{study.target} of {generator} {where}: {describe_names(quality)}"
        for job in jobs:
            missing = [
                name
                for name in quality
                if not any(name in study.measured[m] for m, made in study.made.items() if made.job == job)
            ]
            line += f"; without a record of {job}: {', '.join(missing)}" if missing else ""
        lines.append(line + ("." if jobs else "; none has a measurement of the tokenizer, such as job=reconstruct."))
    return lines


def describe_names(names: Mapping[str, float]) -> str:
    """The number of tokenizers, and their names."""
    return f"{len(names)} tokenizer{'' if len(names) == 1 else 's'} ({', '.join(sorted(names))})"


def for_json(values: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float | str | None]]:
    """Numbers for JSON: infinities as strings."""
    return {outer: {inner: encode(value) for inner, value in numbers.items()} for outer, numbers in values.items()}
