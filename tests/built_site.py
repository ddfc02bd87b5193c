"""Builds the site of docs/ for tests, without a network."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUILD = """
import socket, sys

def refuse(*args, **kwargs):
    raise OSError("the site is built without a network")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from mkdocs.__main__ import cli
cli(["build", "--strict", "--quiet", "--site-dir", sys.argv[1]])
"""
SECONDS = 300


def build(folder: Path) -> None:
    """Builds the site; what the build said is in `build.log`."""
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(folder)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "build.log").write_text(done.stdout + done.stderr)
