"""Which searches are at work on a cluster, so that the last to leave ends what they share.

It knows names of searches and when each was heard of. It does not know what they share.

Where it is lost, the searches whose trials run are known again by their next sign of life. That
one of them had started Serve is not: then Serve stays when the last of them has left.
"""

SILENT_S = 120.0
"""A search that nothing was heard of for so long is gone: it was killed."""
END_S = 30.0
"""How long a search may take to end Serve; then it was killed at that."""


class Presence:
    """The searches on a cluster."""

    def __init__(self) -> None:
        self._heard_s: dict[str, float] = {}
        self._left: set[str] = set()
        self._serve_is_ours = False
        self._ends_until_s: float | None = None

    def wait_s(self, now_s: float) -> float:
        """How long a search has to wait before it joins, at most: one that left ends Serve."""
        return 0.0 if self._ends_until_s is None else max(0.0, self._ends_until_s - now_s)

    def n_at_work(self, now_s: float) -> int:
        """Searches that were heard of lately."""
        return sum(now_s - heard_s < SILENT_S for heard_s in self._heard_s.values())

    def join(self, search_id: str, now_s: float) -> None:
        """A search begins; it looks for Serve after that, which nobody ends while it is there."""
        self._heard_s[search_id] = now_s
        self._left.discard(search_id)

    def started_serve(self) -> None:
        """A search that has joined found no Serve, and started it."""
        self._serve_is_ours = True

    def hear(self, search_id: str, now_s: float) -> None:
        """A search, or one of its trials, gave a sign of life; one that has left may do so late."""
        if search_id not in self._left:
            self._heard_s[search_id] = now_s

    def leave(self, search_id: str, now_s: float) -> bool:
        """A search ends; whether it is to end the Serve that one of them started, and tell then."""
        self._heard_s.pop(search_id, None)
        self._left.add(search_id)
        ends = self._serve_is_ours and not self.n_at_work(now_s)
        self._serve_is_ours &= not ends
        if ends:
            self._ends_until_s = now_s + END_S
        return ends

    def ended_serve(self) -> None:
        """The search that was to end Serve has done so."""
        self._ends_until_s = None
