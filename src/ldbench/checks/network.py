"""Checks of what lies outside: Weights & Biases and the Hugging Face hub, looked for only where that is asked. Nothing is sent but the question."""

import os
import urllib.error
import urllib.request
from dataclasses import dataclass

from ldbench.checks.finding import Finding

PATIENCE = 5.0  # seconds that a server has to answer


@dataclass(frozen=True)
class Service:
    """A server, where it is unless the environment says otherwise, and what can be done without it."""

    name: str
    variable: str  # of the environment
    usual: str
    otherwise: str


SERVICES = {
    "wandb": Service(
        "Weights & Biases",
        "WANDB_BASE_URL",
        "https://api.wandb.ai",
        "without it: logger=none, and wandb=offline for the leaderboard",
    ),
    "hub": Service(
        "the Hugging Face hub",
        "HF_ENDPOINT",
        "https://huggingface.co",
        "without it: give the path of a file or a folder for hf://owner/name",
    ),
}


def check_reach(name: str, *, patience: float = PATIENCE) -> list[Finding]:
    """Whether a service of SERVICES answers. Raises ValueError for another name."""
    if name not in SERVICES:
        raise ValueError(f"reach takes {' and '.join(SERVICES)}, got {name!r}. Say reach=[{','.join(SERVICES)}].")
    service = SERVICES[name]
    address = os.environ.get(service.variable) or service.usual
    where = f"{service.name} at {address}"
    cure = f"Look at the network, at proxies (HTTPS_PROXY) and at {service.variable}; {service.otherwise}"
    if not address.startswith(("https://", "http://")):
        return [
            Finding(
                "broken", "reach", f"{where} is no address of the web", f"Set {service.variable} to one, or unset it"
            )
        ]
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=patience) as answer:
            status = answer.status
    except urllib.error.HTTPError as error:  # an answer all the same: most servers want more than their front door
        status = error.code
        error.close()
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        told = (
            "no answer"
            if isinstance(reason, TimeoutError)
            else str(reason).splitlines()[0][:200] or type(reason).__name__
        )
        return [Finding("broken", "reach", f"{where} cannot be reached within {patience:g} s: {told}", cure)]
    if status >= 500:
        return [
            Finding(
                "warning",
                "reach",
                f"{where} answers with status {status}: it is out of order",
                f"Try again later; {service.otherwise}",
            )
        ]
    return [Finding("ok", "reach", f"{where} answers")]
