"""ldbench COMMAND ...: the same as python -m ldbench.COMMAND ..."""

import importlib
import sys

COMMANDS = ("train", "run", "leaderboard", "doctor", "hub")


def main() -> None:
    """Runs the entry point that the first argument names with the remaining arguments."""
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    if command not in COMMANDS:
        print(f"usage: ldbench {{{','.join(COMMANDS)}}} ...   (each takes --help)", file=sys.stderr)
        sys.exit(0 if command in ("-h", "--help") else 2)
    sys.argv = [f"ldbench {command}", *sys.argv[2:]]
    importlib.import_module(f"ldbench.{command}").main()


if __name__ == "__main__":
    main()
