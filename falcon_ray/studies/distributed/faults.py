"""The fault table of a search: whatever a cluster loses, the search loses nothing.

A real search runs in a process of its own on a cluster of emulated GPUs, and something is killed
once a trial has ended and another one serves. Every candidate is tried, so that what is recommended
depends on what is measured and not on the order of trials.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from falcon_ray.errors import FalconRayError
from falcon_ray.report.record import SearchRecord
from falcon_ray.runtime.emulated.cluster import emulated_cluster
from falcon_ray.runtime.testbed import cluster_faults
from falcon_ray.runtime.testbed.fault_injection import kill_replica
from falcon_ray.runtime.testbed.leftovers import inventory
from falcon_ray.studies.distributed.live_search import GaveUpError, LiveSearch, live_search
from falcon_ray.studies.distributed.live_site import (
    GPU_TYPES,
    MODEL,
    SETTLE_S,
    SPACE,
    Site,
    site,
    teach,
)
from falcon_ray.studies.distributed.options import DistributedOptions
from falcon_ray.studies.distributed.whole_journal import other_recommendation, what_is_wrong
from falcon_ray.studies.figure import Figure
from falcon_ray.studies.measurement.fault_table import FaultOutcome, FaultRow

N_TRIALS = 6
ARGUMENTS = (
    *(MODEL, "--emulate", ",".join(GPU_TYPES), *SPACE),
    *("--max-trials", str(N_TRIALS), "--parallel", "3", "--no-stop-early", "--no-confirm"),
    *("--warm-up-s", "1.5", "--measure-s", "2"),
)
BEGIN_TIMEOUT_S = 180.0
END_TIMEOUT_S = 240.0
NOTICE_S = 90.0
"""A search whose cluster is gone has ended by then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultCase:
    """Something that happens to a search.

    Attributes:
        name: For people.
        make: Makes it happen to a search of which one application serves.
        is_felt: Whether a trial has to have been tried again for it.
        ends_search: Whether it ends the search, which is resumed then.
    """

    name: str
    make: Callable[[Site, LiveSearch, str], None]
    is_felt: bool = False
    ends_search: bool = False


def figures(options: DistributedOptions) -> list[Figure]:
    """Make every fault `options.repeat` times; searches that lost nothing, by fault, and leaks."""
    with TemporaryDirectory(prefix="falcon-faults-") as directory:
        rows, usual_s = table(Path(directory), repeat=options.repeat)
    n = sum(len(row.outcomes) for row in rows)
    return [
        *(row.figure() for row in rows),
        Figure(
            name="searches that lost, repeated or changed something",
            value=sum(row.n_wrong for row in rows),
            at_most=0,
            note=f"of {n}; without a fault one takes {usual_s:.0f} s",
        ),
        Figure(
            name="apps, actors, groups, processes, leases and nodes left",
            value=sum(row.n_leaks for row in rows),
            at_most=0,
            note=f"{SETTLE_S:g} s after {n} searches",
        ),
    ]


def table(
    directory: Path, *, repeat: int, cases: Sequence[FaultCase] = ()
) -> tuple[list[FaultRow], float]:
    """Make faults `repeat` times, one after the other, and lose the cluster as often.

    Args:
        directory: An empty one.
        repeat: How often.
        cases: Which, without the loss of the cluster; all of them and that loss where empty.

    Returns:
        The lines of the table, and the seconds of a search without any fault.
    """
    rows: list[FaultRow] = []
    with site(directory / "one") as here:
        start_s = time.monotonic()
        usual = undisturbed(here)
        usual_s = time.monotonic() - start_s
        for case in cases or CASES:
            outcomes = tuple(make(here, case, usual) for _ in range(repeat))
            rows.append(_row(case.name, outcomes))
    if not cases:
        outcomes = tuple(lose_cluster(directory / f"lost-{i}", usual) for i in range(repeat))
        rows.append(_row("the whole cluster, then a new one, then resumed", outcomes))
    return rows, usual_s


def _row(name: str, outcomes: tuple[FaultOutcome, ...]) -> FaultRow:
    expected = f"{N_TRIALS} trials, each counted once, and the same recommendation"
    return FaultRow(name=name, expected=expected, outcomes=outcomes)


def undisturbed(here: Site) -> SearchRecord:
    """The record of a search to which nothing happens.

    Raises:
        GaveUpError: It went wrong all the same.
    """
    with _begun(here.address, here.new_run(), here.store) as search:
        if code := search.end(timeout_s=END_TIMEOUT_S):
            raise GaveUpError(f"a search without a fault ended with {code}: {search.said()}")
        return search.record()


def make(here: Site, case: FaultCase, usual: SearchRecord) -> FaultOutcome:
    """Make a fault once, and see what the search says and what is left."""
    before, version = inventory(), here.store_version()
    start_s = time.monotonic()
    try:
        wrong = _disturbed(here, case, usual)
    except (GaveUpError, FalconRayError, TimeoutError) as error:
        wrong = str(error)
    wall_s = time.monotonic() - start_s
    if here.store_version() != version:
        wrong = f"{wrong}; the store holds something else".removeprefix("; ")
    return FaultOutcome(wrong=wrong, leaks=here.left_behind(before), wall_s=wall_s)


def _disturbed(here: Site, case: FaultCase, usual: SearchRecord) -> str:
    run = here.new_run()
    with _begun(here.address, run, here.store) as search:
        app_name = _serving(search)
        measured = search.journal()
        case.make(here, search, app_name)
        if not case.ends_search:
            return _verdict(search, measured, usual, is_felt=case.is_felt)
    with _begun(here.address, run, here.store) as resumed:
        return _verdict(resumed, measured, usual)


def lose_cluster(directory: Path, usual: SearchRecord) -> FaultOutcome:
    """Lose a cluster under a search, and go on with it on a new one.

    Args:
        directory: Of a new cluster's runs and store.
        usual: A search that nothing happened to.
    """
    directory.mkdir()
    run, store = directory / "run", directory / "store"
    version = teach(store)
    start_s = time.monotonic()
    try:
        measured = _lost(run, store)
        with site(directory) as here:
            before = inventory()
            with _begun(here.address, run, store) as resumed:
                wrong = _verdict(resumed, measured, usual)
            wall_s = time.monotonic() - start_s
            if here.store_version() != version:
                wrong = f"{wrong}; the store holds something else".removeprefix("; ")
            return FaultOutcome(wrong=wrong, leaks=here.left_behind(before), wall_s=wall_s)
    except (GaveUpError, FalconRayError, TimeoutError) as error:
        return FaultOutcome(wrong=str(error), leaks=(), wall_s=time.monotonic() - start_s)


def _lost(run: Path, store: Path) -> bytes:
    """Begin a search, and end its cluster under it; the journal from before.

    Nobody else is connected: Serve's client would take the next cluster for this one.

    Raises:
        GaveUpError: The search did not begin, or did not notice.
    """
    with ExitStack() as stack:
        with emulated_cluster(GPU_TYPES) as address:
            search = stack.enter_context(_begun(address, run, store))
            search.wait_until(
                lambda: search.count("trial_started") > search.count("trial_ended") > 0,
                "a trial had ended and another had begun",
                timeout_s=BEGIN_TIMEOUT_S,
            )
            measured = search.journal()
        # Ray itself ends a process whose node is gone; what is said then is said for it.
        if search.end(timeout_s=NOTICE_S) == 0:
            raise GaveUpError(f"the search went on without its cluster: {search.said()}")
        search.wait_until_said(f"--resume {run}", timeout_s=NOTICE_S)
        return measured


@contextmanager
def _begun(address: str, run: Path, store: Path) -> Iterator[LiveSearch]:
    with live_search(run, *ARGUMENTS, address=address, store=store) as search:
        yield search


def _serving(search: LiveSearch) -> str:
    """The name of an application that serves, once a trial has ended."""
    found: list[str] = []

    def serves() -> bool:
        if search.count("trial_ended") < 1:
            return False
        name = cluster_faults.running_app(search.app_prefix)
        found.extend([] if name is None else [name])
        return bool(found)

    search.wait_until(serves, "another trial served", timeout_s=BEGIN_TIMEOUT_S)
    return found[0]


def _verdict(
    search: LiveSearch, measured: bytes, usual: SearchRecord, *, is_felt: bool = False
) -> str:
    """What is wrong with a search in the end; empty where nothing is."""
    code = search.end(timeout_s=END_TIMEOUT_S)
    if code:
        return f"the search ended with {code}: {search.said()}"
    record = search.record()
    wrong = list(what_is_wrong(measured, search.journal(), n_trials=N_TRIALS))
    wrong += [each for each in [other_recommendation(usual, record)] if each]
    if is_felt and not any(
        each.observation.attempts > 1 or each.observation.measurement is None
        for each in record.trials
    ):
        wrong.append("no trial was tried again, so that the fault hit nothing")
    return "; ".join(wrong)


def _kill_trial(here: Site, search: LiveSearch, app_name: str) -> None:  # noqa: ARG001
    cluster_faults.kill_actor(cluster_faults.TRIAL_CLASS)


def _kill_replica(here: Site, search: LiveSearch, app_name: str) -> None:  # noqa: ARG001
    kill_replica(app_name)


def _kill_node(here: Site, search: LiveSearch, app_name: str) -> None:  # noqa: ARG001
    gpu_type = cluster_faults.kill_node_under(app_name)
    here.stack.enter_context(cluster_faults.further_node(gpu_type))


def _kill_ledger(here: Site, search: LiveSearch, app_name: str) -> None:  # noqa: ARG001
    pid = cluster_faults.kill_actor(cluster_faults.LEDGER_CLASS)
    cluster_faults.wait_for_successor(cluster_faults.LEDGER_CLASS, pid)


def _kill_store(here: Site, search: LiveSearch, app_name: str) -> None:  # noqa: ARG001
    pid = cluster_faults.kill_actor(cluster_faults.STORE_CLASS)
    cluster_faults.wait_for_successor(cluster_faults.STORE_CLASS, pid)


def _kill_driver(here: Site, search: LiveSearch, app_name: str) -> None:  # noqa: ARG001
    search.process.kill()
    search.process.wait()


CASES: tuple[FaultCase, ...] = (
    FaultCase(name="a trial's process", make=_kill_trial, is_felt=True),
    FaultCase(name="a replica", make=_kill_replica, is_felt=True),
    FaultCase(name="a node, another one like it comes", make=_kill_node, is_felt=True),
    FaultCase(name="the ledger", make=_kill_ledger),
    FaultCase(name="the curve store", make=_kill_store),
    FaultCase(name="the search's own process, then resumed", make=_kill_driver, ends_search=True),
)
"""All that happen on a cluster that stays."""
