"""Removes the Serve applications of trials that nobody runs any more.

A process that is killed deletes nothing. Its lease ends when it has been silent for too long, and
an application without a lease is nobody's. The janitor knows names of applications and leases. It
does not know trials, nor when a lease ends.
"""

import logging
import re
from collections.abc import Callable, Collection, Iterable

logger = logging.getLogger(__name__)

TRIAL_APP = re.compile(r"falcon-[0-9a-f]{6}-[\w-]+")
"""Names of the applications that trials deploy, and of no others."""
GRACE_S = 8.0
"""An application may be seen before its lease, and after it, for as long as this."""


def app_of(lease_id: str) -> str:
    """Name of the application that a lease is for; a trial has a lease for each attempt."""
    return lease_id.partition("/")[0]


class Janitor:
    """Deletes applications that have had no lease for a while.

    Args:
        apps: Names of the applications that Serve knows.
        delete: Deletes one, and need not wait for its end.
    """

    def __init__(self, apps: Callable[[], Iterable[str]], delete: Callable[[str], None]) -> None:
        self._apps = apps
        self._delete = delete
        self._unleased_since_s: dict[str, float] = {}

    def sweep(self, lease_ids: Collection[str], now_s: float) -> tuple[str, ...]:
        """Delete what has had no lease since a sweep that was at least `GRACE_S` before.

        Args:
            lease_ids: All that are asked for or held.
            now_s: Monotonic seconds.

        Returns:
            What was deleted.
        """
        held = {app_of(each) for each in lease_ids}
        unleased = {each for each in self._apps() if TRIAL_APP.fullmatch(each) and each not in held}
        self._unleased_since_s = {
            each: self._unleased_since_s.get(each, now_s) for each in unleased
        }
        forsaken = tuple(
            sorted(
                each for each, since in self._unleased_since_s.items() if now_s - since >= GRACE_S
            )
        )
        for each in forsaken:
            logger.warning("the trial of the Serve app %s is gone; deleting the app", each)
            self._delete(each)
        return forsaken
