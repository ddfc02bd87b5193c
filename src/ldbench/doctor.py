"""python -m ldbench.doctor: checks the installation, the machine and the stored files, and prints what to do."""

import logging
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ldbench.checks import images, installation, latents, machine, network, storage
from ldbench.checks.finding import Finding, examine
from ldbench.io.remote import is_remote

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from ldbench.config.compose import Registry

log = logging.getLogger(__name__)

ANY_SIZE = 32  # px: whether images can be read does not depend on it
MAX_FINDINGS = 10  # printed of one check: after a change of schema, hundreds of records may be unreadable
Check = tuple[str, Callable[[], Sequence[Finding]]]  # its subject, and the check itself


def run(cfg: "DictConfig", registry: "Registry") -> None:
    """Called by Hydra with the composed config; the process exits with status 1 if something is broken."""
    sys.exit(report(build_checks(cfg, registry)))


def build_checks(cfg: "DictConfig", registry: "Registry") -> list[Check]:
    """All checks that a config requests. Raises ValueError for an unknown service."""
    from omegaconf import OmegaConf

    if isinstance(cfg.reach, str) or not set(cfg.reach) <= network.SERVICES.keys():
        known = ",".join(network.SERVICES)
        raise ValueError(f"reach takes a list of {known.replace(',', ' and ')}, got {cfg.reach}. Set reach=[{known}].")
    from ldbench.config.components import instantiate

    artifacts, records, runs = (Path(cfg.paths[name]) for name in ("artifacts", "records", "runs"))
    stores = None if is_remote(cfg.paths.latents) else Path(cfg.paths.latents)
    trainer = {name: cfg.trainer[name] for name in ("accelerator", "precision", "devices", "threads")}
    latent_checks: list[Check] = (
        [("latents", partial(latents.describe_address, cfg.paths.latents))]
        if stores is None
        else [
            ("latents", partial(latents.check_latents, stores)),
            ("latents", partial(latents.check_origins, artifacts, stores)),
        ]
    )
    folders = [Path(cfg.paths.root), artifacts, *([] if stores is None else [stores]), records, runs]
    checks: list[Check] = [
        *build_basic_checks(registry),
        ("cpu", machine.check_cpu),
        ("cuda", machine.check_cuda),
        ("mps", machine.check_mps),
        ("trainer", partial(machine.check_trainer, **trainer)),
        ("disk", partial(machine.check_disk, folders)),
        ("shared memory", machine.check_shared_memory),
        ("temporary", machine.check_temporary_files),
        ("compiler", machine.check_compiler),
        ("weights", storage.check_downloads),
        ("artifacts", partial(storage.check_artifacts, artifacts, runs, registry)),
        *latent_checks,
        ("records", partial(storage.check_records, records)),
    ]
    if cfg.get("data") is not None:
        node = OmegaConf.create(OmegaConf.to_container(cfg.data))
        raw = OmegaConf.to_container(node)
        if isinstance(raw, dict) and str(raw.get("image_size", "")).startswith("${"):  # that of a tokenizer: none here
            node.image_size = ANY_SIZE
        missing = ["data." + str(key) for key in node if OmegaConf.is_missing(node, key)]
        if missing:
            raise ValueError(f"These need a value: {', '.join(missing)}. Give it, as in {missing[0]}=...")
        if "download" in node:
            node.download = False  # a training or a measurement does it
        if isinstance(raw, dict) and "cache_dir" in raw:  # the doctor changes nothing
            node.cache_dir = None
        checks.append(("data", partial(images.check_data, partial(instantiate, node))))
    return [*checks, *(("reach", partial(network.check_reach, name)) for name in cfg.reach)]


def build_basic_checks(registry: "Registry | None" = None) -> list[Check]:
    """The checks that need no config."""
    return [
        ("python", partial(installation.check_python, sys.version_info[:3])),
        ("packages", installation.check_packages),
        ("torchvision", installation.check_torchvision),
        ("config", partial(installation.check_config, registry)),
        ("plug-ins", installation.check_plugins),
    ]


def report(checks: Sequence[Check]) -> int:
    """Logs the findings of each check when it ends, and returns the exit status: 1 if something is broken, else 0."""
    levels: list[str] = []
    for subject, check in checks:
        findings = examine(subject, check)
        levels += [finding.level for finding in findings]
        for finding in findings[:MAX_FINDINGS]:
            log.info("%-8s %-12s %s", finding.level, finding.subject, finding.what)
            if finding.cure:
                log.info("%21s  -> %s", "", finding.cure)
        if len(findings) > MAX_FINDINGS:
            log.info("%-8s %-12s and %d more", "", subject, len(findings) - MAX_FINDINGS)
    broken, warnings = levels.count("broken"), levels.count("warning")
    log.info(
        "\n%s broken, %s.",
        broken or "Nothing is",
        f"{warnings} warning{'' if warnings == 1 else 's'}" if warnings else "no warnings",
    )
    return 1 if broken else 0


def main() -> None:
    """Runs the command line; only the basic checks if Hydra or the config tree is missing."""
    try:
        from ldbench.cli import launch
        from ldbench.config.compose import conf_dir

        has_config_tree = (conf_dir() / "doctor.yaml").is_file()
    except ImportError:
        has_config_tree = False
    if has_config_tree:
        launch("doctor", run)
    else:
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
        sys.exit(report(build_basic_checks()))


if __name__ == "__main__":
    main()
