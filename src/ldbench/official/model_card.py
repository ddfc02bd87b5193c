"""The card of an artifact on the Hugging Face hub: what it is, how to load it, what was measured of it and how, and what to cite."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ldbench import official
from ldbench.artifacts import store
from ldbench.results.records import Record, encode

TASKS = {
    "tokenizer": "image-feature-extraction",
    "generator": "unconditional-image-generation",
}  # the nearest of the hub's
PAPERS = {  # name, component, or backbone and objective -> the official model whose paper is to be cited
    "vmae": "vmae_f8d16",
    "maetok": "maetok_b_128",
    "vavae": "vavae_f16d32",
    "sdvae": "sd_vae_f8d4",
    "dit/diffusion": "dit_xl_2",
    "dit/flow_matching": "sit_xl_2",
    "lightningdit/flow_matching": "lightningdit_xl_1",
}
CITATION = re.compile(r"(?P<author>[^,]+), (?P<title>.+), (?P<venue>[^,]+) (?P<year>\d{4}), arXiv:(?P<arxiv>\S+)")


def measured(records: Sequence[Record], name: str, kind: str) -> list[Record]:
    """The records of an artifact itself: a tokenizer's are those without a generator."""
    role = {"tokenizer": name} if kind == "tokenizer" else {"generator": name}
    return [
        record
        for record in records
        if role.items() <= record.artifacts.items() and ("generator" in record.artifacts) == (kind == "generator")
    ]


def make_card(folder: Path, repo: str, records: Sequence[Record], *, licence: str | None) -> str:
    """README.md of an artifact, with its metadata (`model-index`) and its text. `records`: of this artifact."""
    from huggingface_hub import EvalResult, ModelCardData

    manifest, described = store.read_manifest(folder), json.loads((folder / store.CONFIG).read_text())
    name, kind = store.name_of(folder), described["group"]
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
    told = {"model_name": name, "eval_results": results} if results else {}
    data = ModelCardData(
        license=licence, library_name="ldbench", pipeline_tag=TASKS[kind], tags=["ldbench", f"image-{kind}"], **told
    )
    parts = [
        f"# {name}",
        sentence_of(described, kind),
        loading(repo, kind),
        facts(described, manifest),
        figures(records),
        citing(folder, records),
    ]
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(part for part in parts if part) + "\n"


def sentence_of(described: Mapping[str, Any], kind: str) -> str:
    """What it is."""
    imported = described["recipe"].get("official")
    what = "An image tokenizer" if kind == "tokenizer" else "A generator of images in the latents of a tokenizer"
    if imported is None:
        return f"{what} for latent diffusion, trained with `ldbench`."
    entry = official.entry(imported)
    return f"{what} for latent diffusion: the released weights `{imported}` of {entry.source} (licence: {entry.licence}), imported by `ldbench`."


def loading(repo: str, kind: str) -> str:
    """How to load it."""
    job = "reconstruct" if kind == "tokenizer" else "generate"
    return (
        f'## Loading it\n\n```python\nimport ldbench\n\n{kind} = ldbench.load("hf://{repo}")\n```\n\n'
        f"```\npython -m ldbench.run job={job} {kind}=artifact {kind}.path=hf://{repo}\n```\n\n"
        "Its files are held against the checksums in `manifest.json`, and it can run no code but that of `ldbench`."
    )


def facts(described: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    """What it is made of, and the identity of it."""
    upstream = described["recipe"].get("upstream", {})
    rows = {
        "component": described["component"],
        **{key: json.dumps(value) for key, value in described["keywords"].items()},
        "digest": manifest["digest"],
        **{f"digest of its {role}": digest for role, digest in upstream.items()},
        "made": manifest.get("created"),
    }
    return "## What it is\n\n| | |\n| --- | --- |\n" + "\n".join(
        f"| {key} | `{value}` |" for key, value in rows.items() if value is not None
    )


def figures(records: Sequence[Record]) -> str:
    """What was measured, as a table; nothing where nothing was."""
    if not records:
        return ""
    lines = [
        f"| {record.job} | {record.subject['data']} | {metric} | {estimate.value:.6g} | "
        f"{'' if estimate.low is None else f'{estimate.low:.6g} to {estimate.high:.6g}'} | `{record.protocol['hash']}` | `{record.id}` |"
        for record in records
        for metric, estimate in record.metrics.items()
    ]
    head = "| measurement | data | metric | value | 95 % interval | protocol | record |\n| --- | --- | --- | --- | --- | --- | --- |"
    return f"## Measured\n\nNumbers of different protocols are not to be ranked together.\n\n{head}\n" + "\n".join(
        lines
    )


def citing(folder: Path, records: Sequence[Record]) -> str:
    """What to cite, for a generator with the paper of its tokenizer; nothing for a component that is nobody's paper."""
    described = store.read_config(folder)
    papers = [paper_of(store.name_of(folder), described)]
    upstream = described["recipe"].get("upstream", {}).get("tokenizer")
    if upstream is not None:
        beside = next(iter(sorted(folder.absolute().parents[1].glob(f"tokenizers/*-{upstream[:8]}"))), None)
        named = [
            record.artifacts["tokenizer"]
            for record in records
            if record.artifacts.get("tokenizer", "").endswith(upstream[:8])
        ]
        if beside is not None and store.is_complete(beside):
            papers.append(paper_of(beside.name, store.read_config(beside)))
        elif named:
            papers.append(paper_of(named[0], None))
    cited = "\n\n".join(bibtex(official.entry(paper).citation) for paper in dict.fromkeys(papers) if paper is not None)
    return f"## Citation\n\n```bibtex\n{cited}\n```" if cited else ""


def paper_of(name: str, described: Mapping[str, Any] | None) -> str | None:
    """The official model whose paper an artifact's is, by its name and, where it is here, by what its config says."""
    stem = name.rpartition("-")[0]
    if described is None:
        return stem if stem in official.catalogue() else PAPERS.get(stem)
    keywords = described["keywords"]
    parts = [keywords[part]["component"] for part in ("backbone", "objective") if part in keywords]
    known = PAPERS.get(stem, PAPERS.get("/".join(parts) if parts else described["component"]))
    return described["recipe"].get("official") or known


def bibtex(citation: str) -> str:
    """A citation of ours, `Authors, title, venue year, arXiv:number`, as BibTeX. Raises ValueError for another form."""
    told = CITATION.fullmatch(citation)
    if told is None:
        raise ValueError(f"A citation is `Authors, title, venue year, arXiv:number`, got {citation!r}.")
    author = told["author"].replace(" et al.", " and others")
    key = f"{author.split()[0].lower()}{told['year']}{told['title'].split()[0].lower().strip(':-.')}"
    fields = {"author": author, "title": f"{{{told['title']}}}", "booktitle": told["venue"], "year": told["year"]}
    fields |= {"eprint": told["arxiv"], "archivePrefix": "arXiv"}
    return f"@inproceedings{{{key},\n" + ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items()) + "\n}"
