"""What is ours is known by its tags; what bears our name without them is never touched.

Everything is looked for before it is made, so that making it twice makes it once, and noted in the
journal, so that it is looked for longer where AWS may not show it yet. The module does not know
what kinds of things there are.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from cluster.account.patience import Patience, is_missing
from cluster.clients import Clients
from cluster.identity import Identity
from cluster.state.journal import Journal
from cluster.tags import ID
from falcon_ray.errors import ClusterError

T = TypeVar("T")

SEEN_WITHIN_S = 10.0
"""How long something that was made may stay out of sight before it is made again."""
USABLE_WITHIN_S = 60.0
"""How long a thing that was made may be unknown to the calls that use it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What everything of a cluster is made with.

    Attributes:
        identity: The cluster's.
        clients: Of AWS.
        journal: What was begun, and made.
        patience: How to wait.
    """

    identity: Identity
    clients: Clients
    journal: Journal
    patience: Patience

    def find_or_make(
        self, what: str, *, find: Callable[[], Sequence[str]], make: Callable[[], str]
    ) -> str:
        """The id of the one thing of its kind, made unless it is there.

        Args:
            what: The kind, as the journal calls it.
            find: Ids of those that carry our tags. Where there are several, which a call whose
                answer was lost can leave behind, the one in the journal is taken.
            make: Makes one and returns its id.
        """
        found = find()
        if not found and self.journal.may_exist(what):
            found = self.patience.until(find, timeout_s=SEEN_WITHIN_S)
        if found:
            known = self.journal.id_of(what)
            thing_id = known if known is not None and known in found else min(found)
            self.journal.made(what, thing_id)
            return thing_id
        self.journal.intend(what)
        thing_id = self.usable(make)
        self.journal.made(what, thing_id)
        return thing_id

    def change(self, what: str, call: Callable[[], object]) -> None:
        """Make a change that may be made any number of times."""
        self.journal.intend(what)
        self.usable(call)
        self.journal.made(what, "done")

    def usable(self, call: Callable[[], T]) -> T:
        """Call until what it hangs on, made just before, is known to it."""
        return self.patience.through(call, is_missing, timeout_s=USABLE_WITHIN_S)

    def must_own(self, what: str, name: str, tags: Mapping[str, str]) -> None:
        """Refuse something of our name that is not ours.

        Raises:
            ClusterError: It is not; it was left as it is.
        """
        if not self.identity.owns(tags):
            raise foreign(what, name, self.identity)


def foreign(what: str, name: str, identity: Identity) -> ClusterError:
    """Something bears the name of ours and is not ours."""
    return ClusterError(
        f"{what} {name!r} is there already and is not of cluster {identity.name!r} (it has no tag "
        f"{ID}={identity.cluster_id}), so it is left as it is; rename or remove it, or choose "
        "another name for the cluster"
    )
