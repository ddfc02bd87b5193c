"""Job `predict`: which measurements of tokenizers order the quality of their generators. It starts from records, and opens no model."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from ldbench.analysis.prediction import LEAST, Association, associate, holm, mean_ranks
from ldbench.core.interfaces import Estimate
from ldbench.io.files import write_json
from ldbench.results.prediction_figure import draw
from ldbench.results.predictions import MEAN_RANK, told_in
from ldbench.results.records import Record, encode
from ldbench.results.studies import Study, make_studies

FIGURE, NUMBERS = "prediction.png", "prediction.json"
COUNTS = {"resamples": 100, "permutations": 100}


@dataclass(frozen=True)
class Predictor:
    """A measurement held against a quality."""

    found: Association
    p_holm: float  # among all measurements that are held against it


class Predict:
    """The rank correlation of every measurement of tokenizers with the quality of one generator, and where there are several also with the mean
    rank over them, on the tokenizers that all of them have.

    Signs read: above 0, better values go with better generation; where the records do not say which values are better, larger ones do.
    A measurement that fewer than five of the tokenizers have, or that is the same for all, is left out.
    """

    name: ClassVar[str] = "predict"
    revision: ClassVar[int] = 1
    requires: ClassVar[frozenset[str]] = frozenset({"records"})
    settings: ClassVar[tuple[str, ...]] = ("target", *COUNTS, "seed")

    def __init__(self, *, study: Study, target: str | None, resamples: int, permutations: int, seed: int):
        assert study.target == target, "a study is of one target"
        self.study = study
        self.draws = {"resamples": resamples, "permutations": permutations, "seed": seed}

    @staticmethod
    def check(settings: Mapping[str, Any]) -> None:
        """Raises ValueError for settings out of range."""
        for key, least in COUNTS.items():
            if settings[key] < least:
                raise ValueError(f"job.{key} must be at least {least}, got {settings[key]}.")
        target = settings["target"]
        if target is not None and not isinstance(target, str):
            raise ValueError(
                f"job.target must be the name of a metric of generated images, such as gfd_digits, got {target!r}."
            )

    @staticmethod
    def output_files(settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The files in the folder of figures without which a known measurement is made again."""
        return (FIGURE, NUMBERS)

    @staticmethod
    def studies(records: Sequence[Record], settings: Mapping[str, Any]) -> list[Study]:
        """What can be predicted from records: for each target and protocol, the generators that have five tokenizers.

        Raises ValueError where there is none, with what there is and what it lacks.
        """
        target = settings["target"]
        made = [study for study in make_studies(records, target) if study.target in study.higher_is_better]
        if not made:
            there = sorted(
                {
                    name
                    for record in records
                    if record.subject["generator"] is not None
                    for name in record.metrics
                    if name in (record.higher_is_better or {})
                }
            )
            known = f" Records of generated images hold {', '.join(there)}." if there else ""
            raise ValueError(
                f"No record holds {target or 'gfid or gfd_<extractor>'} of generated images, and which of its values are better.{known} "
                "python -m ldbench.train experiments=predict_digits makes all that is needed."
            )
        enough = [
            replace(study, quality={name: found for name, found in study.quality.items() if len(found) >= LEAST})
            for study in made
        ]
        enough = [
            study
            for study in enough
            if study.quality and any(shared(study, values) for values in study.measured.values())
        ]
        if not enough:
            raise ValueError(
                f"A prediction needs {LEAST} tokenizers or more that were measured alike, and there are too few:\n"
                + "\n".join(line for study in made for line in lacks(study))
                + "\nMeasure more tokenizers with the same generator and the same jobs; python -m ldbench.train experiments=predict_digits does."
            )
        return enough

    def run(self, out: Path) -> dict[str, Estimate]:
        """All coefficients with intervals, p-values and counts by generator and measurement; `out` gets all numbers as JSON, and a picture."""
        goals = self.goals()
        predicted = {generator: self.predict(goal) for generator, goal in goals.items()}
        metrics = {
            f"predict/{statistic}/{generator}/{measurement}": estimate
            for generator, predictors in predicted.items()
            for measurement, predictor in predictors.items()
            for statistic, estimate in {
                "spearman": predictor.found.spearman,
                "kendall": predictor.found.kendall,
                "p_holm": Estimate(predictor.p_holm),
                "tokenizers": Estimate(predictor.found.num),
            }.items()
        }
        write_json(out / NUMBERS, self.numbers(goals, predicted))
        draw(
            told_in(metrics, self.study.higher_is_better),
            out / FIGURE,
            title=f"{self.study.conditions.data}: what goes with a better {self.study.target}",
        )
        return metrics

    def goals(self) -> dict[str, dict[str, float]]:
        """Generator -> tokenizer -> a number that is larger for better generation; with several generators, minus the mean rank over them too."""
        goals = {name: self.oriented(self.study.target, found) for name, found in self.study.quality.items()}
        common = sorted(set.intersection(*(set(goal) for goal in goals.values())))
        if len(goals) > 1 and len(common) >= LEAST:
            goals[MEAN_RANK] = dict(
                zip(common, mean_ranks([[goal[name] for name in common] for goal in goals.values()]), strict=True)
            )
        return goals

    def predict(self, goal: Mapping[str, float]) -> dict[str, Predictor]:
        """Every measurement held against a goal, by name."""
        found = {}
        for name, values in self.study.measured.items():
            both = sorted(goal.keys() & values.keys())
            sided = self.oriented(name, values)
            x, y = [sided[tokenizer] for tokenizer in both], [goal[tokenizer] for tokenizer in both]
            if varies(x) and varies(y):
                found[name] = associate(x, y, **self.draws)
        raised = holm([association.p for association in found.values()])
        return {name: Predictor(association, p) for (name, association), p in zip(found.items(), raised, strict=True)}

    def oriented(self, metric: str, values: Mapping[str, float]) -> dict[str, float]:
        """The values with their sign turned where smaller ones are better."""
        sign = 1 if self.study.higher_is_better.get(metric, True) else -1
        return {tokenizer: sign * value for tokenizer, value in values.items()}

    def numbers(
        self, goals: Mapping[str, Mapping[str, float]], predicted: Mapping[str, Mapping[str, Predictor]]
    ) -> dict[str, Any]:
        """Everything, as JSON has it: what was held against what, what came of it, and what was left out."""
        study = self.study
        return {
            "target": study.target,
            "data": study.conditions.data,
            "protocol": dict(study.conditions.protocol),
            "tokenizers": {name: list(artifacts) for name, artifacts in study.artifacts.items()},
            "quality": plain(study.quality),
            "measured": plain(study.measured),
            "made": {
                name: {"job": made.job, "protocol": made.protocol["hash"], "settings": made.settings}
                for name, made in study.made.items()
            },
            "predictions": {
                generator: {name: {**asdict(told.found), "p_holm": told.p_holm} for name, told in predictors.items()}
                for generator, predictors in predicted.items()
            },
            "left_out": {
                generator: {
                    name: why(goal, values)
                    for name, values in study.measured.items()
                    if name not in predicted[generator]
                }
                for generator, goal in goals.items()
            },
            "records": sorted(f"{record.job}-{record.id}" for record in study.records),
            **self.draws,
        }


def varies(values: Sequence[float]) -> bool:
    """Whether there are enough values, and not all the same."""
    return len(values) >= LEAST and len(set(values)) > 1


def shared(study: Study, values: Mapping[str, float]) -> bool:
    """Whether a measurement varies over enough of the tokenizers of a generator."""
    return any(varies([values[name] for name in quality if name in values]) for quality in study.quality.values())


def why(goal: Mapping[str, float], values: Mapping[str, float]) -> str:
    """Why a measurement is left out."""
    both = goal.keys() & values.keys()
    if len(both) < LEAST:
        return f"{len(both)} of the {len(goal)} tokenizers have it; missing: {', '.join(sorted(goal.keys() - both))}"
    return "the same for all tokenizers, or the quality is"


def lacks(study: Study) -> list[str]:
    """What a study has, and what its tokenizers lack, in lines."""
    lines = []
    jobs = sorted({made.job for made in study.made.values()})
    for generator, quality in study.quality.items():
        told = f"{study.target} of {generator} on {study.conditions.data}, protocol {study.conditions.short_name}: {listed(quality)}"
        for job in jobs:
            missing = [
                name
                for name in quality
                if not any(name in study.measured[m] for m, made in study.made.items() if made.job == job)
            ]
            told += f"; without a record of {job}: {', '.join(missing)}" if missing else ""
        lines.append(told + ("." if jobs else "; none has a measurement of its own, such as job=reconstruct."))
    return lines


def listed(names: Mapping[str, float]) -> str:
    """How many tokenizers, and which."""
    return f"{len(names)} tokenizer{'' if len(names) == 1 else 's'} ({', '.join(sorted(names))})"


def plain(values: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float | str | None]]:
    """Numbers as JSON holds them: infinities by name."""
    return {outer: {inner: encode(value) for inner, value in found.items()} for outer, found in values.items()}
