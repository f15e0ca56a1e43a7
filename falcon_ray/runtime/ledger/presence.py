"""Which searches are at work on a cluster, so that the last to leave ends what they share.

It knows names of searches and when each was heard of. It does not know what they share.
"""

SILENT_S = 120.0
"""A search that nothing was heard of for so long is gone: it was killed."""


class Presence:
    """The searches on a cluster."""

    def __init__(self) -> None:
        self._heard_s: dict[str, float] = {}
        self._serve_is_ours = False

    def join(self, search_id: str, *, started_serve: bool, now_s: float) -> None:
        """A search begins; `started_serve` where it found no Serve and started it."""
        self._heard_s[search_id] = now_s
        self._serve_is_ours |= started_serve

    def hear(self, search_id: str, now_s: float) -> None:
        """A search, or one of its trials, gave a sign of life."""
        self._heard_s[search_id] = now_s

    def leave(self, search_id: str, now_s: float) -> bool:
        """A search ends; whether it is to end the Serve that one of them started."""
        self._heard_s.pop(search_id, None)
        others = any(now_s - heard_s < SILENT_S for heard_s in self._heard_s.values())
        ends = self._serve_is_ours and not others
        self._serve_is_ours &= not ends
        return ends
