"""Samples of several generators side by side: a row is one index, so that seed and label are the same."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ldbench.results.image_comparison import (
    SAMPLES,
    Column,
    ImageComparison,
    SheetSettings,
    Subject,
    none_saved,
)
from ldbench.results.leaderboards import Leaderboard
from ldbench.results.ranking_conditions import conditions_of
from ldbench.results.records import Record
from ldbench.results.saved_images import SavedSamples, saved_samples


def compare_samples(subjects: Sequence[Subject], folder: Path, settings: SheetSettings) -> ImageComparison:
    """The first samples of each generator. Generators on latents of one shape start from the same noise in each row.

    Raises ValueError without saved images, and for samples that have different labels.
    """
    saved = [found for subject in subjects if (found := saved_samples(folder, subject.record)) is not None]
    if not subjects or len(saved) < len(subjects):
        raise none_saved(folder, "generate")
    by_noise = Counter(noise_key(one) for one in saved)
    # columns of the same noise stand together: of most first, of unknown noise last
    keys = [(one.noise is None, -by_noise[noise_key(one)], noise_key(one)) for one in saved]
    places = sorted(range(len(saved)), key=keys.__getitem__)
    subjects, saved = [subjects[i] for i in places], [saved[i] for i in places]
    labels = [label for index in range(settings.rows) if (label := common_label(index, subjects, saved)) is not None]
    if not labels:
        raise ValueError(
            f"{' and '.join(name_of(subject) for subject in subjects)} have no sample of index 0 in common. Draw the "
            "samples again with force=true, or choose other records: only=[A,B]."
        )
    columns = [
        Column(
            subject.title,
            [one.sample(index, label) for index, label in enumerate(labels)],
            model=subject.model,
            note=shape_of(one.noise) if len(by_noise) > 1 else "",
        )
        for subject, one in zip(subjects, saved, strict=True)
    ]
    return ImageComparison(
        SAMPLES,
        conditions_of(subjects[0].record),
        [f"{index}, class {label}" for index, label in enumerate(labels)],
        columns,
        notes([one.noise for one in saved]),
        None,
    )


def common_label(index: int, subjects: Sequence[Subject], saved: Sequence[SavedSamples]) -> str | None:
    """The class of a sample; None if one has no sample of this index. Raises ValueError unless all have the same."""
    labels = [one.find(index) for one in saved]
    if None in labels:
        return None
    for subject, label in zip(subjects, labels, strict=True):
        if label != labels[0]:
            raise ValueError(
                f"Sample {index} of {name_of(subjects[0])} is of class {labels[0]}, and that of {name_of(subject)} of "
                f"class {label}: their labels were chosen differently. Choose records of the same labels: only=[A,B]."
            )
    return labels[0]


def of_one_seed(board: Leaderboard, records: Sequence[Record]) -> list[Record]:
    """Those records of a leaderboard that were sampled with the seed that most of its models were sampled with, of
    several the smallest: with another seed the noise is another one.
    """
    ids = {record.id for record in records}
    seeds = Counter(
        seed for row in board.rows for seed in {sampling_seed(record) for record in row.records if record.id in ids}
    )
    if not seeds:
        return []
    chosen = min(seeds, key=lambda seed: (-seeds[seed], seed))
    return [record for record in records if sampling_seed(record) == chosen]


def sampling_seed(record: Record) -> int:
    """The seed that samples were drawn with."""
    seed = record.config.get("seed")
    return seed if isinstance(seed, int) else 0


def noise_key(saved: SavedSamples) -> str:
    """What is equal where the noise is equal."""
    return json.dumps(saved.noise, sort_keys=True)


def shape_of(noise: Mapping[str, Any] | None) -> str:
    """The seed and the shape of the noise."""
    if noise is None:
        return "noise not recorded"
    return f"noise {noise['num_tokens']} x {noise['channels']}, seed {noise['seed']}"


def name_of(subject: Subject) -> str:
    """The name of a record."""
    return f"{subject.record.job}-{subject.record.id}"


def notes(noises: Sequence[Mapping[str, Any] | None]) -> list[str]:
    """What is equal in a row."""
    shown = "The first samples: a row is one index and label."
    if len(noises) < 2:
        return [shown]
    if None in noises:
        return [
            shown,
            "The noise of a row is equal where latents have the same shape; of samples drawn before noise.json was "
            "written, the shape is not known (force=true draws them again).",
        ]
    if len({json.dumps(noise, sort_keys=True) for noise in noises}) == 1:
        return [shown, "All start from the same noise in each row."]
    return [shown, "Noise is equal only in columns of one seed and shape (tokens x channels), which stand together."]
