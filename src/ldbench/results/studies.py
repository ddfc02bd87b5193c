"""Studies: over tokenizers, the quality of generators beside all measurements of the tokenizers, from records.

All generators of a study were sampled under one protocol. A tokenizer is one recipe; its seeds are averaged.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from ldbench.io.files import digest
from ldbench.results.metric_names import is_reference
from ldbench.results.models import GENERATORS, TOKENIZERS, is_opened, named_best, recipe_of
from ldbench.results.ranking_conditions import Conditions, conditions_of
from ldbench.results.records import Record, merge_directions
from ldbench.results.replicates import artifact_of, estimates_of, nested, on_latest_artifacts, replicates
from ldbench.results.summaries import summarize

DISTANCES = ("gfid", "gfd_")  # prefixes of the default targets
SAMPLING = "path/"  # prefix of measurements of a generator's sampling, which cost nothing beside the samples
TRIALS = ("trainer", "init")  # config in which a trial run differs from the model that it is of
PARTS = {"tokenizer": TOKENIZERS, "generator": (*GENERATORS, *TRIALS)}  # config that describes a model, by role


@dataclass(frozen=True)
class Study:
    """Numbers by tokenizer, as measured: signs are not flipped."""

    target: str  # the metric of generated images
    conditions: Conditions  # of it
    quality: Mapping[str, Mapping[str, float]]  # generator -> tokenizer -> mean over seeds
    measured: Mapping[str, Mapping[str, float]]  # measurement -> tokenizer -> mean over seeds
    made: Mapping[str, Conditions]  # measurement -> its conditions
    artifacts: Mapping[str, Sequence[str]]  # tokenizer -> its artifacts, one for each seed
    records: Sequence[Record]  # that the numbers come from
    higher_is_better: Mapping[str, bool]  # of the target and the measurements, if the records hold it
    families: Mapping[str, str]  # tokenizer -> its architecture; one that is not known is a family of its own
    # generator -> measurement of its sampling -> tokenizer -> mean over seeds
    sampling: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)
    num_tests: int = 0  # of predictions that were named in advance, over all studies of the records

    def predictors_of(self, generator: str) -> Mapping[str, Mapping[str, float]]:
        """Measurement -> tokenizer -> mean: those of tokenizers, and those of a generator's own sampling."""
        return {**self.measured, **self.sampling.get(generator, {})}

    @property
    def tokenizers(self) -> list[str]:
        """The tokenizers with a measured generator."""
        return sorted({tokenizer for values in self.quality.values() for tokenizer in values})


def build_studies(records: Sequence[Record], target: str | None, exclude: Collection[str] = ()) -> list[Study]:
    """A study for each dataset and protocol of generated images.

    `target`: their metric; None: each distance, gfid or gfd_<extractor>. `exclude`: names of artifacts, whose models
    are left out. Of a repeated measurement the latest counts, and of a seed that was trained on several machines one
    artifact. Raises ValueError, naming both, for two models of one name of which one may be a trial run.
    """
    records = without(exclude, [record for record in records if record.models is not None])  # schema 1 holds no models
    tokenizers = tokenizers_of(records)
    cells: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    for record in records:
        if record.subject["generator"] is not None and record.artifacts.get("tokenizer") in tokenizers:
            for name in record.metrics:
                if name == target or (target is None and name.startswith(DISTANCES) and not is_reference(name)):
                    cells[name, *conditions_of(record).key].append(record)
    return [study_of(key[0], measured, records, tokenizers) for key, measured in sorted(cells.items())]


def study_of(target: str, cells: Sequence[Record], records: Sequence[Record], tokenizers: Mapping[str, str]) -> Study:
    """The study of cells with the same conditions, with all measurements of their tokenizers on the same images."""
    for role in PARTS:
        validate_no_trials(cells, role)
    conditions, used = conditions_of(cells[0]), []
    cells = on_latest_artifacts(cells, "tokenizer")
    known = {artifact_of(record, "tokenizer"): record.artifacts["tokenizer"] for record in cells}
    generators = generators_of(cells)
    quality, sampling = {}, {}
    for generator in sorted(set(generators.values())):
        latest = replicates(record for record in cells if generators[record.id] == generator)
        quality[generator] = means(latest, target, tokenizers)
        names = sorted({name for record in latest for name in record.metrics if name.startswith(SAMPLING)})
        sampling[generator] = {name: means(latest, name, tokenizers) for name in names}
        used += latest
    groups: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    for record in records:
        same = record.subject["data"] == conditions.data and record.protocol.get("data") == conditions.protocol.get(
            "data"
        )
        if same and record.subject["generator"] is None and artifact_of(record, "tokenizer") in known:
            groups[conditions_of(record).key].append(record)
    measured, made, better = {}, {}, merge_directions(cells)
    better = {target: better[target]} if target in better else {}
    for (name, key), same in named(groups).items():
        latest = replicates(same)
        direction = merge_directions(latest).get(key)
        better |= {} if direction is None else {name: direction}
        measured[name], made[name] = means(latest, key, tokenizers), conditions_of(same[0])
        used += latest
    artifacts: dict[str, list[str]] = defaultdict(list)
    for artifact in sorted(known.values()):
        artifacts[tokenizers[artifact]].append(artifact)
    unique = list({record.id: record for record in used}.values())
    families = {tokenizers[record.artifacts["tokenizer"]]: family_of(record) for record in reversed(cells)}
    return Study(target, conditions, quality, measured, made, artifacts, unique, better, families, sampling)


def family_of(record: Record) -> str:
    """The architecture of a record's tokenizer: variants of one are not independent."""
    return (record.components or {}).get("tokenizer", record.artifacts["tokenizer"])


def without(names: Collection[str], records: Sequence[Record]) -> list[Record]:
    """The records without the models of these artifacts. Raises ValueError for a name that no record has."""
    excluded = {
        (role, model_of(record, role)) for record in records for role in PARTS if record.artifacts.get(role) in names
    }
    known = {record.artifacts[role] for record in records for role in PARTS if role in record.artifacts}
    for name in names:
        if name not in known:
            raise ValueError(
                f"job.exclude names {name}, and no record is of an artifact of that name. There are records of "
                f"{', '.join(sorted(known)) or 'none'}."
            )
    return [record for record in records if not any((role, model_of(record, role)) in excluded for role in PARTS)]


def model_of(record: Record, role: str) -> str | None:
    """The identity of a record's tokenizer or generator."""
    return (record.models or {}).get(role)


def validate_no_trials(cells: Sequence[Record], role: str) -> None:
    """Raises ValueError for two models of one name whose configs differ in nothing but how they were trained.

    A run of a few steps, or of another precision, is another model; which of the two is meant is not known here.
    """
    models: dict[str, list[Record]] = defaultdict(list)
    for record in cells:
        if not is_opened(record, role):
            models[model_of(record, role) or ""].append(record)
    described = [named_best(records) for _, records in sorted(models.items())]
    for first, second in combinations(described, 2):
        if first.subject[role] != second.subject[role]:
            continue
        one, other = (
            {key: value for key, value in recipe_of(record).items() if key.partition(".")[0] in PARTS[role]}
            for record in (first, second)
        )
        differing = sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))
        if differing and all(key.startswith(TRIALS) for key in differing):
            names = [record.artifacts[role] for record in (first, second)]
            values = "; ".join(f"{key}: {one.get(key)} and {other.get(key)}" for key in differing)
            raise ValueError(
                f"{names[0]} and {names[1]} are two models of the {role} {first.subject[role]}, which differ in how "
                f"they were trained alone ({values}), so that one may be a trial run. Leave one out: "
                f"job.exclude=[{names[0]}] or job.exclude=[{names[1]}]."
            )


def named(groups: Mapping[tuple[str, ...], Sequence[Record]]) -> dict[tuple[str, str], list[Record]]:
    """(name, metric) -> its records, which have the same conditions.

    A metric that was measured under several conditions has a name for each, with a digest of the conditions.
    """
    by_metric: dict[str, dict[tuple[str, ...], list[Record]]] = defaultdict(lambda: defaultdict(list))
    for key, records in groups.items():
        for record in records:
            for metric in record.metrics:
                if not is_reference(metric):
                    by_metric[metric][key].append(record)
    return {
        (metric if len(by_key) == 1 else f"{metric} [{digest(list(key))[:8]}]", metric): records
        for metric, by_key in sorted(by_metric.items())
        for key, records in sorted(by_key.items())
    }


def means(records: Iterable[Record], metric: str, tokenizers: Mapping[str, str]) -> dict[str, float]:
    """A metric by tokenizer: the mean over its seeds of the mean over the generators' seeds."""
    by_tokenizer: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_tokenizer[tokenizers[record.artifacts["tokenizer"]]].append(record)
    nests = {name: nested(found, metric) for name, found in sorted(by_tokenizer.items())}
    return {name: summarize(estimates_of(found, metric)).value for name, found in nests.items() if found}


def tokenizers_of(records: Iterable[Record]) -> dict[str, str]:
    """Artifact -> the name of its tokenizer. Artifacts of one model with several seeds are one tokenizer.

    Tokenizers of the same name are named by their artifacts.
    """
    models: dict[str, set[str]] = defaultdict(set)
    names: dict[str, str] = {}
    for record in sorted(records, key=lambda record: (record.created, record.id)):
        artifact, digest_ = record.artifacts.get("tokenizer"), (record.models or {}).get("tokenizer")
        if artifact is not None and digest_ is not None:
            models[digest_].add(artifact)
            if digest_ not in names or not is_opened(record):
                names[digest_] = record.subject["tokenizer"] or artifact
    counts = Counter(names.values())
    return {
        artifact: names[digest_] if counts[names[digest_]] == 1 else min(artifacts)
        for digest_, artifacts in models.items()
        for artifact in artifacts
    }


def generators_of(cells: Iterable[Record]) -> dict[str, str]:
    """Record id -> the name of its generator, with a digest if several models have this name."""
    models = {
        record.id: (record.subject["generator"] or "", (record.models or {}).get("generator", "")[:8])
        for record in cells
    }
    counts = Counter(name for name, _ in set(models.values()))
    return {identity: f"{name}-{key}" if counts[name] > 1 else name for identity, (name, key) in models.items()}
