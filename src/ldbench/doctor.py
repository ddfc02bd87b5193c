"""python -m ldbench.doctor: looks at the installation, the machine and what is stored, and says what to do about what is wrong."""

import logging
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ldbench.checks import images, installation, latents, machine, network, storage
from ldbench.checks.finding import Finding, examine

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from ldbench.config.compose import Registry

log = logging.getLogger(__name__)

ANY_SIZE = 32  # px: whether images can be read does not depend on it
MOST = 10  # findings of one check that are said: after a change of schema, hundreds of records may be unreadable
Check = tuple[str, Callable[[], Sequence[Finding]]]  # what it is about, and the check


def run(cfg: "DictConfig", registry: "Registry") -> None:
    """What Hydra calls with the composed config; the process ends with status 1 if something is broken."""
    sys.exit(report(checks_of(cfg, registry)))


def checks_of(cfg: "DictConfig", registry: "Registry") -> list[Check]:
    """All checks that a config asks for. Raises ValueError for a service that nobody knows."""
    from omegaconf import OmegaConf

    if isinstance(cfg.reach, str) or not set(cfg.reach) <= network.SERVICES.keys():
        known = ",".join(network.SERVICES)
        raise ValueError(f"reach takes a list of {known.replace(',', ' and ')}, got {cfg.reach}. Say reach=[{known}].")
    from ldbench.config.components import instantiate

    artifacts, records, runs = (Path(cfg.paths[name]) for name in ("artifacts", "records", "runs"))
    trainer = {name: cfg.trainer[name] for name in ("accelerator", "precision", "devices", "threads")}
    checks: list[Check] = [
        *bare_checks(registry),
        ("cpu", machine.check_cpu),
        ("cuda", machine.check_cuda),
        ("mps", machine.check_mps),
        ("trainer", partial(machine.check_trainer, **trainer)),
        ("disk", partial(machine.check_disk, [Path(cfg.paths.root), artifacts, records, runs])),
        ("weights", storage.check_downloads),
        ("artifacts", partial(storage.check_artifacts, artifacts, runs, registry)),
        ("latents", partial(latents.check_latents, artifacts / storage.LATENTS)),
        ("latents", partial(latents.check_origins, artifacts)),
        ("records", partial(storage.check_records, records)),
    ]
    if cfg.get("data") is not None:
        node = OmegaConf.create(OmegaConf.to_container(cfg.data))
        if str(OmegaConf.to_container(node).get("image_size", "")).startswith(
            "${"
        ):  # of a tokenizer, which there is none of here
            node.image_size = ANY_SIZE
        checks.append(("data", partial(images.check_data, partial(instantiate, node))))
    return [*checks, *(("reach", partial(network.check_reach, name)) for name in cfg.reach)]


def bare_checks(registry: "Registry | None" = None) -> list[Check]:
    """The checks that need no config."""
    return [
        ("python", partial(installation.check_python, sys.version_info[:3])),
        ("packages", installation.check_packages),
        ("torchvision", installation.check_torchvision),
        ("config", partial(installation.check_config, registry)),
    ]


def report(checks: Sequence[Check]) -> int:
    """Says each finding as soon as it is made, and returns the exit status: 1 if something is broken, 0 otherwise."""
    levels: list[str] = []
    for subject, check in checks:
        findings = examine(subject, check)
        levels += [finding.level for finding in findings]
        for finding in findings[:MOST]:
            log.info("%-8s %-12s %s", finding.level, finding.subject, finding.what)
            if finding.cure:
                log.info("%21s  -> %s", "", finding.cure)
        if len(findings) > MOST:
            log.info("%-8s %-12s and %d more", "", subject, len(findings) - MOST)
    broken, warnings = levels.count("broken"), levels.count("warning")
    log.info(
        "\n%s broken, %s.",
        broken or "Nothing is",
        f"{warnings} warning{'' if warnings == 1 else 's'}" if warnings else "no warnings",
    )
    return 1 if broken else 0


def main() -> None:
    try:
        from ldbench.cli import launch
        from ldbench.config.compose import conf_dir

        composes = (conf_dir() / "doctor.yaml").is_file()
    except ImportError:
        composes = False
    if composes:
        launch("doctor", run)
    else:  # without Hydra or the config tree, the installation is what to look at first
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
        sys.exit(report(bare_checks()))


if __name__ == "__main__":
    main()
