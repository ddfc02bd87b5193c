"""Checks of services: Weights & Biases and the Hugging Face hub, only on request. Only a HEAD request is sent."""

import os
import urllib.error
import urllib.request
from dataclasses import dataclass

from ldbench.checks.finding import Finding

TIMEOUT = 5.0  # seconds for a server to answer


@dataclass(frozen=True)
class Service:
    """A server, its address unless the environment sets another, and what works without it."""

    name: str
    variable: str  # environment variable with its address
    default: str
    without: str


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


def check_reach(name: str, *, timeout: float = TIMEOUT) -> list[Finding]:
    """Whether a service of SERVICES answers. Raises ValueError for another name."""
    if name not in SERVICES:
        raise ValueError(f"reach takes {' and '.join(SERVICES)}, got {name!r}. Set reach=[{','.join(SERVICES)}].")
    service = SERVICES[name]
    address = os.environ.get(service.variable) or service.default
    where = f"{service.name} at {address}"
    cure = f"Check the network, proxies (HTTPS_PROXY) and {service.variable}; {service.without}"
    if not address.startswith(("https://", "http://")):
        return [
            Finding("broken", "reach", f"{where} is not a web address", f"Set {service.variable} to one, or unset it")
        ]
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=timeout) as answer:
            status = answer.status
    except urllib.error.HTTPError as error:  # an answer too: most servers refuse the root path
        status = error.code
        error.close()
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        message = (
            "no answer"
            if isinstance(reason, TimeoutError)
            else str(reason).splitlines()[0][:200] or type(reason).__name__
        )
        return [Finding("broken", "reach", f"{where} cannot be reached within {timeout:g} s: {message}", cure)]
    if status >= 500:
        return [
            Finding(
                "warning",
                "reach",
                f"{where} answers with status {status}: it is not working",
                f"Try again later; {service.without}",
            )
        ]
    return [Finding("ok", "reach", f"{where} answers")]
