"""ldbench COMMAND ...: the same as python -m ldbench.COMMAND ..."""

import importlib
import sys

import ldbench

COMMANDS = {  # what each is for
    "train": "train a tokenizer, or with generator=... a generator on its latents, and measure it",
    "run": "measure with job=...: latents, samples, speed, anybody's images",
    "leaderboard": "rank all records, and write tables and a page",
    "doctor": "check the installation, the machine and the stored files",
    "hub": "upload an artifact to the Hugging Face hub",
    "new": "write a package with a tokenizer, backbone, loss, metric or job of your own",
    "completion": "print the script by which bash, zsh or fish completes these commands",
}


def describe() -> str:
    """The usage, with a line for each command."""
    lines = [f"  {command:13}{purpose}" for command, purpose in COMMANDS.items()]
    head = ["usage: ldbench COMMAND ...   (each takes --help)", "       ldbench --version", ""]
    return "\n".join([*head, *lines, "", "For example: ldbench train tokenizer=vmae", ""])


def main() -> None:
    """Runs the entry point that the first argument names with the remaining arguments."""
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    if command in ("-V", "--version"):
        print(f"ldbench {ldbench.__version__}")
        return
    if command in ("-h", "--help"):
        print(describe(), end="")
        return
    if command not in COMMANDS:
        print(f"There is no command {command!r}.\n\n{describe()}" if command else describe(), end="", file=sys.stderr)
        sys.exit(2)
    sys.argv = [f"ldbench {command}", *sys.argv[2:]]
    importlib.import_module(f"ldbench.{command}").main()


if __name__ == "__main__":
    main()
