"""The pictures of notebooks on the site: `python -m tests.notebook_pictures ROOT` runs every notebook and writes them.

ROOT holds what these commands leave: `train tokenizer=vmae generator=sit`, `run job=gmm tokenizer=vmae` and `run
job=smoothness tokenizer=vmae`. The leaderboard is that of the records in the repository.
"""

import sys
from pathlib import Path

from tests.running_notebooks import run_notebook

ROOT = Path(__file__).parents[1]
OUT = ROOT / "docs" / "images" / "notebooks"
CHOSEN = {"tour": 1, "which_tokenizer": 0, "gmm_fit": 0, "smoothness": 0, "leaderboard": 0}  # the place of its picture


def main() -> None:
    """Writes the chosen picture of every notebook."""
    root = Path(sys.argv[1]).resolve()
    OUT.mkdir(parents=True, exist_ok=True)
    trained = [str(path.parent) for path in sorted(root.glob("artifacts/tokenizers/*/manifest.json"))]
    given = {
        "LDBENCH_RECORDS": ROOT / "experiments" / "matrix_fashion" / "records",
        "LDBENCH_TOKENIZERS": ",".join([*trained, "identity", "identity_p8"]),
    }
    for name, place in CHOSEN.items():
        own = root / name if name == "which_tokenizer" else root
        shown = run_notebook(name, root, timeout=1200, LDBENCH_ROOT=own, **given)
        (OUT / f"{name}.png").write_bytes(shown.pictures[place])
        sys.stdout.write(f"{OUT / name}.png: picture {place + 1} of {len(shown.pictures)}\n")


if __name__ == "__main__":
    main()
