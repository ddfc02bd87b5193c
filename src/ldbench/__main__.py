"""ldbench VERB ...: the same as python -m ldbench.VERB ..."""

import importlib
import sys

VERBS = (
    "train",
    "run",
    "leaderboard",
    "doctor",
    "hub",
)


def main() -> None:
    """Hands the command line to the entry point that its first word names."""
    given = sys.argv[1] if len(sys.argv) > 1 else ""
    if given not in VERBS:
        print(f"usage: ldbench {{{','.join(VERBS)}}} ...   (each takes --help)", file=sys.stderr)
        sys.exit(0 if given in ("-h", "--help") else 2)
    sys.argv = [f"ldbench {given}", *sys.argv[2:]]
    importlib.import_module(f"ldbench.{given}").main()


if __name__ == "__main__":
    main()
