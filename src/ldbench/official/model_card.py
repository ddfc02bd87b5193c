"""The model card of an artifact on the Hugging Face hub: description, usage, measurements and citations."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ldbench import official
from ldbench.artifacts import store
from ldbench.results.records import Record, encode
from ldbench.results.replicates import artifact_of

# the hub's closest tasks
TASKS = {"tokenizer": "image-feature-extraction", "generator": "unconditional-image-generation"}
PAPERS = {  # name, component, or backbone and objective -> the official model whose paper to cite
    "vmae": "vmae_f8d16",
    "maetok": "maetok_b_128",
    "vavae": "vavae_f16d32",
    "sdvae": "sd_vae_f8d4",
    "dit/diffusion": "dit_xl_2",
    "dit/flow_matching": "sit_xl_2",
    "lightningdit/flow_matching": "lightningdit_xl_1",
    "ditdh/flow_matching": "ditdh",
}
CITATION = re.compile(
    r"(?P<author>[^,]+), (?P<title>.+), (?P<venue>[^,]+) (?P<year>\d{4}), (arXiv:(?P<arxiv>\S+)|(?P<url>https://\S+))"
)


def select_records(records: Sequence[Record], name: str, key: str, kind: str) -> list[Record]:
    """The records of an artifact itself, by its weights' key, or by its name in records that hold none.

    Those of a tokenizer are without a generator.
    """
    role = "tokenizer" if kind == "tokenizer" else "generator"
    return [
        record
        for record in records
        if artifact_of(record, role) == (key if record.weights else name)
        and ("generator" in record.artifacts) == (role == "generator")
    ]


def build_card(folder: Path, repo: str, records: Sequence[Record], *, licence: str | None) -> str:
    """README.md of an artifact, with its metadata (`model-index`) and its text. `records`: of this artifact."""
    from huggingface_hub import EvalResult, ModelCardData

    manifest, model_config = (
        store.read_manifest(folder),
        json.loads((folder / store.CONFIG).read_text(encoding="utf-8")),
    )
    name, kind = store.name_of(folder), model_config["group"]
    results = [
        EvalResult(
            task_type=TASKS[kind],
            task_name=record.job,
            dataset_type=str(record.subject["data"]),
            dataset_name=str(record.subject["data"]),
            dataset_config=f"{record.job}-{record.id}",
            dataset_args={"protocol": record.protocol["hash"]},
            metric_type=metric,
            metric_name=metric,
            metric_value=encode(estimate.value),
        )
        for record in records
        for metric, estimate in record.metrics.items()
    ]
    data = ModelCardData(
        license=licence,
        library_name="ldbench",
        pipeline_tag=TASKS[kind],
        tags=["ldbench", f"image-{kind}"],
        model_name=name if results else None,
        eval_results=results or None,
    )
    parts = [
        f"# {name}",
        describe_model(model_config, kind),
        describe_usage(repo, kind),
        describe_config(model_config, manifest),
        describe_measurements(records),
        describe_citations(folder, records),
    ]
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(part for part in parts if part) + "\n"


def describe_model(model_config: Mapping[str, Any], kind: str) -> str:
    """A sentence about the model and its origin."""
    imported = model_config["recipe"].get("official")
    what = "An image tokenizer" if kind == "tokenizer" else "A generator of images in the latents of a tokenizer"
    if imported is None:
        return f"{what} for latent diffusion, trained with `ldbench`."
    entry = official.entry(imported)
    return (
        f"{what} for latent diffusion: the released weights `{imported}` of {entry.source} "
        f"(license: {entry.licence}), imported by `ldbench`."
    )


def describe_usage(repo: str, kind: str) -> str:
    """The section on loading it."""
    job = "reconstruct" if kind == "tokenizer" else "generate"
    return (
        f'## Loading it\n\n```python\nimport ldbench\n\n{kind} = ldbench.load("hf://{repo}")\n```\n\n'
        f"```\npython -m ldbench.run job={job} {kind}=artifact {kind}.path=hf://{repo}\n```\n\n"
        "Its files are verified by the checksums in `manifest.json`, and loading runs no code but that of `ldbench`."
    )


def describe_config(model_config: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    """The table of its component, keywords and digest."""
    upstream = model_config["recipe"].get("upstream", {})
    rows = {
        "component": model_config["component"],
        **{key: json.dumps(value) for key, value in model_config["keywords"].items()},
        "digest": manifest["digest"],
        **{f"digest of its {role}": digest for role, digest in upstream.items()},
        "created": manifest.get("created"),
    }
    return "## What it is\n\n| | |\n| --- | --- |\n" + "\n".join(
        f"| {key} | `{value}` |" for key, value in rows.items() if value is not None
    )


def describe_measurements(records: Sequence[Record]) -> str:
    """The table of measurements; empty without records."""
    if not records:
        return ""
    lines = [
        f"| {record.job} | {record.subject['data']} | {metric} | {estimate.value:.6g} | "
        f"{'' if estimate.low is None else f'{estimate.low:.6g} to {estimate.high:.6g}'} | "
        f"`{record.protocol['hash']}` | `{record.id}` |"
        for record in records
        for metric, estimate in record.metrics.items()
    ]
    columns = ("measurement", "data", "metric", "value", "95 % interval", "protocol", "record")
    header = f"| {' | '.join(columns)} |\n| {' | '.join('---' for _ in columns)} |"
    note = "Numbers of different protocols are not to be ranked together."
    return f"## Measured\n\n{note}\n\n{header}\n" + "\n".join(lines)


def describe_citations(folder: Path, records: Sequence[Record]) -> str:
    """The papers to cite, including that of a generator's tokenizer; empty for a component without a paper."""
    model_config = store.read_config(folder)
    papers = [find_paper(store.name_of(folder), model_config)]
    upstream = model_config["recipe"].get("upstream", {}).get("tokenizer")
    if upstream is not None:
        tokenizer = next(iter(sorted(folder.absolute().parents[1].glob(f"tokenizers/*-{upstream[:8]}"))), None)
        names = [
            record.artifacts["tokenizer"]
            for record in records
            if record.artifacts.get("tokenizer", "").endswith(upstream[:8])
        ]
        if tokenizer is not None and store.is_complete(tokenizer):
            papers.append(find_paper(tokenizer.name, store.read_config(tokenizer)))
        elif names:
            papers.append(find_paper(names[0], None))
    unique = [paper for paper in dict.fromkeys(papers) if paper is not None]
    entries = "\n\n".join(bibtex(official.entry(paper).citation) for paper in unique)
    return f"## Citation\n\n```bibtex\n{entries}\n```" if entries else ""


def find_paper(name: str, model_config: Mapping[str, Any] | None) -> str | None:
    """The official model whose paper describes an artifact, by its name and, if available, its config."""
    stem = name.rpartition("-")[0]
    if model_config is None:
        return stem if stem in official.catalog() else PAPERS.get(stem)
    keywords = model_config["keywords"]
    parts = [keywords[part]["component"] for part in ("backbone", "objective") if part in keywords]
    known = PAPERS.get(stem, PAPERS.get("/".join(parts) if parts else model_config["component"]))
    return model_config["recipe"].get("official") or known


def bibtex(citation: str) -> str:
    """A citation, `Authors, title, venue year, arXiv:number` or a URL in place of it, as BibTeX.

    Raises ValueError for another format.
    """
    match = CITATION.fullmatch(citation)
    if match is None:
        raise ValueError(f"A citation is `Authors, title, venue year, arXiv:number` (or a URL), got {citation!r}.")
    author = match["author"].replace(" et al.", " and others")
    key = f"{author.split()[0].lower()}{match['year']}{match['title'].split()[0].lower().strip(':-.')}"
    fields = {"author": author, "title": f"{{{match['title']}}}", "booktitle": match["venue"], "year": match["year"]}
    fields |= {"eprint": match["arxiv"], "archivePrefix": "arXiv"} if match["arxiv"] else {"url": match["url"]}
    return f"@inproceedings{{{key},\n" + ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items()) + "\n}"
