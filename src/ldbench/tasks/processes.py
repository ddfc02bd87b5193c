"""Who is who among the processes that share a training."""

import os


def is_child() -> bool:
    """Whether this process was started by another one to share its training."""
    return int(os.environ.get("LOCAL_RANK", "0")) > 0 or int(os.environ.get("RANK", "0")) > 0
