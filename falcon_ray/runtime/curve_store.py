"""The curve store: one actor per cluster that holds the profile for every search on it.

The actor is named and detached, so that it outlives the search that made it. It hands out the
profile as one object of Ray's, which readers of a node share without a copy, takes what searches
measured, and writes it to its location. It knows profiles as wholes, not what their rows mean.

A location on a local path is a path of the machine of whoever made the store first, that is the
driver's: the actor runs on that node and nowhere else, and ends with it. Every node reads and adds
through the actor, whether or not it sees the path. Of an object store (`s3://`) every node sees the
same, so that the actor may start again on another one.
"""

from collections.abc import Mapping
from typing import Any, NoReturn

import pyarrow as pa
import ray
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    ActorUnschedulableError,
    GetTimeoutError,
    ObjectLostError,
    RayError,
    RayTaskError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from falcon_ray.errors import ClusterError, InputError
from falcon_ray.knowledge.profile.directory import first_line
from falcon_ray.knowledge.profile.files import default_location, resolved_location
from falcon_ray.knowledge.profile.manifest import Source
from falcon_ray.knowledge.profile.profile import Profile
from falcon_ray.runtime.curve_store_actor import CurveStore

ACTOR_NAME = "curve_store"
NAMESPACE = "falcon_ray"
FLUSH_S = 5.0
CALL_TIMEOUT_S = 120.0
ATTEMPTS = 3


class CurveStoreClient:
    """The cluster's curve store, for a driver or a task; it may be sent to tasks.

    Args:
        location: Of the profile, read by the actor; by default that of the cluster's store where
            there is one, else `default_location()`.
        flush_s: Longest time that additions stay in memory alone, for a store made here.
        home_node: Ray's id of the node that the store runs on; by default the node we are on.
        actor: The store's actor, by one who has it already.
        timeout_s: Longest time that a call may take.

    Raises:
        InputError: The location cannot be read or written, or the cluster's store has another.
        ClusterError: Ray does not let the store run.
    """

    def __init__(
        self,
        location: str | None = None,
        *,
        flush_s: float = FLUSH_S,
        home_node: str | None = None,
        actor: Any = None,  # noqa: ANN401 - an actor handle
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> None:
        self._location = resolved_location(location or default_location())
        self._takes_any = location is None
        self._flush_s = flush_s
        self._timeout_s = timeout_s
        # Where the path is: the node of the client that came first, also if another one has to
        # make the store again.
        self._home_node = home_node or ray.get_runtime_context().get_node_id()
        self._held: tuple[str, Profile] | None = None
        # A client that was sent here was connected where it comes from.
        self._actor = actor or self._connected()

    @property
    def location(self) -> str:
        """Where the store keeps its profile."""
        return self._location

    def profile(self) -> Profile:
        """The profile with everything added so far, its tables merged already.

        Tables are shared with the other readers of this node and must not be written to.
        """
        for _ in range(ATTEMPTS):
            version, (reference,) = self._call("profile")
            if self._held is None or self._held[0] != version:
                try:
                    self._held = (version, ray.get(reference, timeout=self._timeout_s))
                except ObjectLostError:  # the actor that put it died; its successor puts another
                    continue
                except RayError as error:
                    self._give_up(error)
            return self._held[1]
        raise ClusterError(
            f"the curve store of {self._location} was lost {ATTEMPTS} times while its profile was "
            "read; look whether its node is short of memory"
        )

    def reference(self) -> ray.ObjectRef:
        """A reference to what `profile` gives, for tasks that only read it.

        A task that takes it as an argument has the profile without asking the store, in the
        version of now.
        """
        _, (reference,) = self._call("profile")
        return reference

    def version(self) -> str:
        """Version of what `profile` would give; equal where the contents are."""
        return self._call("version")

    def add(
        self, tables: Mapping[str, pa.Table], sources: Mapping[str, Source] | None = None
    ) -> str:
        """Add measured rows; they are on disk within `flush_s` seconds, or after `flush`.

        Adding the same content again changes nothing.

        Args:
            tables: Rows by the name of their table.
            sources: Those that the rows name; `manifest.OWN_SOURCE` need not be given.

        Returns:
            The version that holds them.

        Raises:
            InputError: Rows do not fit their schema or name an unknown source.
        """
        return self._call("add", Profile.of_tables(tables, sources))

    def flush(self) -> str:
        """Have everything added so far written; returns the version at the location.

        Raises:
            InputError: The location cannot be written any more.
        """
        return self._call("flush")

    def close(self) -> None:
        """Flush, and end the cluster's store; whoever uses it next starts it again.

        Call it before ending a Ray of one's own, which ends actors without notice. On a cluster
        that stays, `flush` is enough.

        Raises:
            InputError: The location cannot be written any more.
            ClusterError: The store does not answer, so that what was added last may be lost.
        """
        self._held = None
        for _ in range(ATTEMPTS):
            try:
                # This one waits while the actor is restarting. The next one must not be tried
                # again by Ray, for which an actor that ends has failed.
                ray.get(self._actor.opened.remote(), timeout=self._timeout_s)
                end = self._actor.end.options(max_task_retries=0).remote()
                ray.get(end, timeout=self._timeout_s)
            except ActorUnavailableError:
                continue
            except ActorDiedError:
                return
            except RayError as error:
                self._give_up(error)
        raise ClusterError(
            f"the curve store of {self._location} broke {ATTEMPTS} times while it was to end, so "
            "that what was added since its last flush may be lost; look at its node's memory and "
            "disk"
        )

    def _call(self, method: str, *arguments: Profile) -> Any:  # noqa: ANN401
        for attempt in range(ATTEMPTS):
            try:
                reply = getattr(self._actor, method).remote(*arguments)
                return ray.get(reply, timeout=self._timeout_s)
            except ActorDiedError as error:
                if attempt + 1 == ATTEMPTS:
                    self._give_up(error)
                self._actor = self._connected()  # somebody closed it
            except RayError as error:
                self._give_up(error)
        raise AssertionError("the last attempt returns or raises")

    def _connected(self) -> Any:  # noqa: ANN401 - an actor handle
        try:
            actor: Any = ray.get_actor(ACTOR_NAME, namespace=NAMESPACE)
        except ValueError:  # nobody has made it yet, or somebody closed it
            actor = self._made()
        try:
            location, problem = ray.get(actor.opened.remote(), timeout=self._timeout_s)
        except RayError as error:
            self._give_up(error)
        if location != self._location and self._takes_any:
            self._location = location
        elif location != self._location:
            raise InputError(
                f"the curve store of this cluster keeps its profile at {location}, not at "
                f"{self._location}; use that location, or end the store first by "
                f"CurveStoreClient({location!r}).close()"
            )
        if problem is not None:
            ray.kill(actor)
            raise InputError(problem)
        return actor

    def _made(self) -> Any:  # noqa: ANN401 - an actor handle
        is_local = "://" not in self._location
        actor_class: Any = ray.remote(CurveStore)
        return actor_class.options(
            name=ACTOR_NAME,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,  # of two that make it at a time, one does
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=-1,
            scheduling_strategy=NodeAffinitySchedulingStrategy(self._home_node, soft=not is_local),
        ).remote(self._location, self._flush_s)

    def _give_up(self, error: RayError) -> NoReturn:
        """Raise what the actor raised on purpose, else what went wrong, in one line."""
        store = f"the curve store of {self._location}"
        if isinstance(error, RayTaskError):
            cause = error.cause
            if isinstance(cause, InputError):
                raise InputError(str(cause)) from None
            raise ClusterError(
                f"{store} failed: {type(cause).__name__}: {first_line(cause)}; look at the log of "
                f"the actor {ACTOR_NAME}, and check the location by falcon-ray store show"
            ) from error
        reason = first_line(error)
        if isinstance(error, ActorUnschedulableError):
            reason = "its node is gone; name an s3:// location for a store that outlives its node"
        elif isinstance(error, GetTimeoutError):
            reason = f"it did not answer within {self._timeout_s:g} s; look at its node's load"
        raise ClusterError(f"{store} cannot be used: {reason}") from error

    def __reduce__(self) -> tuple[object, ...]:
        return (
            _client,
            (self._location, self._flush_s, self._home_node, self._actor, self._timeout_s),
        )


def _client(
    location: str, flush_s: float, home_node: str, actor: object, timeout_s: float
) -> CurveStoreClient:
    return CurveStoreClient(
        location, flush_s=flush_s, home_node=home_node, actor=actor, timeout_s=timeout_s
    )
