"""What Ray says on its own account goes to the log, and not between what a command prints.

Ray prints warnings of its raylets to the driver's standard output, also where a driver asked not to
be told of logs; a command whose output is JSON cannot have that.
"""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from ray._private import worker

logger = logging.getLogger(__name__)


def log_what_ray_prints() -> None:
    """Have Ray's messages to this driver logged, from the next connection on."""
    if not hasattr(worker, "print_to_stdstream"):
        logger.debug("this Ray prints its messages in another way")
        return
    worker.print_to_stdstream = _log


def _log(data: Mapping[str, Any], ignore_prefix: bool = False) -> None:  # noqa: ARG001 - Ray's
    lines: Iterable[str] = data.get("lines", ())
    for line in lines:
        logger.info("Ray says: %s", line)
