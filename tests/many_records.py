"""Records of a leaderboard of many: 200 models and 10 000 records, with configs as large as those of real ones.

python -m tests.many_records DIR    # writes them to DIR/records, for python -m ldbench.leaderboard paths.root=DIR
"""

import random
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ldbench.core.estimate import Estimate
from ldbench.results import records
from ldbench.results.records import Record
from tests.made_records import GENERATION, jobs_of, make_record

GENERATORS = ("dit", "lightningdit", "sit")
RECIPE = {f"setting_{index}": f"a value of the recipe {index}" for index in range(40)}  # 2 KB, as a real tokenizer's
SETTINGS = {f"option_{index}": index for index in range(200)}  # 4 KB, as the rest of a real config


def many_records(num_tokenizers: int = 50, num_seeds: int = 10, num_samplings: int = 5) -> Iterator[Record]:
    """Tokenizers, and three generators on each: 200 models, and 5 + 3 x 5 records for each seed of a tokenizer.

    By psnr and by gfd_digits the first tokenizer is the worst and the last one the best.
    """
    for index in range(num_tokenizers):
        name = f"tokenizer_{index:03d}"
        for seed in range(num_seeds):
            rng = random.Random(f"{index} {seed}")
            place = 3 * index / num_tokenizers
            for job, (protocol, metrics) in jobs_of(place, seed, rng).items():
                yield full(make_record(job=job, tokenizer=name, seeds=(seed, 0), protocol=protocol, metrics=metrics))
            for column, generator in enumerate(GENERATORS):
                for sampling in range(num_samplings):
                    distance = 2 - place / 3 - 0.01 * column + rng.gauss(0, 0.02)
                    record = make_record(
                        job="generate",
                        tokenizer=name,
                        generator=generator,
                        seeds=(seed, 0),
                        protocol=GENERATION,
                        metrics={
                            "gfd_digits": distance,
                            "recall_digits": 0.5 + place / 10,
                            "gfd_digits_floor": 0.037,
                            "class_accuracy_digits": 0.86 + rng.gauss(0, 0.01),
                        },
                        machine="",
                        created=f"2026-11-24T16:13:{sampling:02d}+00:00",
                    )
                    yield full(replace(record, config={**record.config, "seed": sampling}))


def full(record: Record) -> Record:
    """A record with intervals, and with a config of a real size."""
    metrics = {
        name: Estimate(number.value, number.value - 0.02, number.value + 0.02, 0.01)
        for name, number in record.metrics.items()
    }
    config: dict[str, Any] = {
        **record.config,
        "tokenizer": {**record.config["tokenizer"], "losses": RECIPE},
        "trainer": {**record.config["trainer"], **SETTINGS},
    }
    return replace(record, metrics=metrics, config=config)


if __name__ == "__main__":
    for each in many_records():
        records.write(each, Path(sys.argv[1]) / "records")
