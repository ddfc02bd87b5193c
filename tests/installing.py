"""Installs a package for other processes, by its own build system and without a network."""

import subprocess
import sys
import zipfile
from pathlib import Path


def install(source: Path, site: Path) -> Path:
    """Builds the wheel of a package and unpacks it into a folder of packages, as installing a pure wheel does."""
    build = "import sys, hatchling.build; print(hatchling.build.build_wheel(sys.argv[1]))"
    site.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", build, str(site)]
    name = subprocess.run(command, cwd=source, check=True, capture_output=True, text=True).stdout.split()[-1]
    with zipfile.ZipFile(site / name) as wheel:
        wheel.extractall(site)
    (site / name).unlink()
    return site
