"""Ten searches at the same time on one cluster of emulated GPUs, with one store.

Each is a process of its own with its own journal. The ledger is to serve them alike, none may see
another's trials, and what they share may not grow with their number.
"""

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from falcon_ray.knowledge.profile.files import read_profile
from falcon_ray.report.recommendation import Recommendation, recommend
from falcon_ray.runtime.testbed import cluster_faults
from falcon_ray.runtime.testbed.leftovers import inventory
from falcon_ray.studies.distributed.fairness import Wait, overtakings, waits_of
from falcon_ray.studies.distributed.live_search import LiveSearch, live_search
from falcon_ray.studies.distributed.live_site import GPU_TYPES, MODEL, SPACE, Site, site
from falcon_ray.studies.distributed.whole_journal import what_is_wrong
from falcon_ray.studies.figure import Figure

N_SEARCHES = 10
N_TRIALS = 3
TIMEOUT_S = 540.0
MEMORY_GIB = 1.5
SHARED = frozenset({"ClusterLedger", "CurveStore", "ServeController"})
_POLL_S = 1.0


def figures() -> list[Figure]:
    """Run them, and see what they say, what they share and what they leave."""
    with TemporaryDirectory(prefix="falcon-searches-") as directory, site(Path(directory)) as here:
        before, version = inventory(), here.store_version()
        start_s = time.monotonic()
        with ExitStack() as stack:
            searches = [stack.enter_context(_begun(here, i)) for i in range(N_SEARCHES)]
            watched = _watch(searches)
            wall_s = time.monotonic() - start_s
            wrong = [each for search in searches for each in _wrong_with(search)]
            names = {each.app_prefix for each in searches if each.journal()}
            waits = [each for search in searches for each in waits_of(search.directory)]
        left = here.left_behind(before)
        store_kept = here.store_version() == version and bool(read_profile(here.store).parts)
    return [
        Figure(
            name=f"{N_SEARCHES} searches at once: ended with a recommendation",
            value=N_SEARCHES - len({each.partition(":")[0] for each in wrong}),
            at_least=N_SEARCHES,
            note="; ".join(
                [
                    f"{N_TRIALS} trials each on {', '.join(GPU_TYPES)}, one after the other",
                    f"{wall_s:.0f} s in all",
                    *wrong,
                ]
            ),
        ),
        *_fairness(waits, watched.ended_s),
        Figure(
            name="names of searches that no other has",
            value=len(names),
            at_least=N_SEARCHES,
            note="by which their apps, leases and journals are told apart",
        ),
        Figure(
            name="the store holds what it held, on disk too",
            value=float(store_kept),
            at_least=1,
            note="emulated searches teach it nothing",
        ),
        Figure(
            name="memory of ledger, store and Serve's controller together",
            value=sum(watched.rss_mib.values()) / 1024,
            unit="GiB",
            at_most=MEMORY_GIB,
            note="largest resident size of each: "
            + ", ".join(f"{name} {mib:.0f} MiB" for name, mib in sorted(watched.rss_mib.items())),
        ),
        Figure(
            name="apps, actors, groups, processes, leases and nodes left",
            value=len(left),
            at_most=0,
            note="; ".join(left),
        ),
    ]


def _begun(here: Site, number: int) -> AbstractContextManager[LiveSearch]:
    arguments = (
        *(MODEL, "--emulate", ",".join(GPU_TYPES), *SPACE, "--seed", str(number)),
        *("--max-trials", str(N_TRIALS), "--parallel", "1", "--no-stop-early", "--no-confirm"),
        *("--warm-up-s", "1.5", "--measure-s", "2"),
    )
    return live_search(
        here.directory / f"search-{number}", *arguments, address=here.address, store=here.store
    )


@dataclass(frozen=True, slots=True)
class _Watched:
    """What was seen while they ran: when each ended, and the largest size of what they share."""

    ended_s: tuple[float, ...]
    rss_mib: Mapping[str, float]


def _watch(searches: Sequence[LiveSearch]) -> _Watched:
    start_s = time.monotonic()
    ended: dict[int, float] = {}
    largest: dict[str, float] = {}
    while len(ended) < len(searches) and time.monotonic() - start_s < TIMEOUT_S:
        for i, search in enumerate(searches):
            if i not in ended and search.process.poll() is not None:
                ended[i] = time.monotonic() - start_s
        for name, mib in cluster_faults.rss_mib(SHARED).items():
            largest[name] = max(largest.get(name, 0.0), mib)
        time.sleep(_POLL_S)
    return _Watched(tuple(ended.values()), largest)


def _wrong_with(search: LiveSearch) -> Iterator[str]:
    name = search.directory.name
    code = search.process.poll()
    if code is None:
        yield f"{name}: it has not ended within {TIMEOUT_S:g} s: {search.said()}"
        return
    if code:
        yield f"{name}: it ended with {code}: {search.said()}"
        return
    for each in what_is_wrong(b"", search.journal(), n_trials=N_TRIALS):
        yield f"{name}: {each}"
    if not isinstance(recommend(search.record()), Recommendation):
        yield f"{name}: it recommends nothing"


def _fairness(waits: Sequence[Wait], ended_s: Sequence[float]) -> list[Figure]:
    totals = {
        search: sum(each.wait_s for each in own)
        for search, own in itertools.groupby(
            sorted(waits, key=lambda each: each.search), key=lambda each: each.search
        )
    }
    lines = sorted({each.line for each in waits})
    told = ", ".join(f"{sum(each.line == line for each in waits)} on {line}" for line in lines)
    return [
        Figure(
            name="grants to a trial while another was first by any account",
            value=overtakings(waits),
            at_most=0,
            note=f"of {len(waits)}: {told}; it had asked before, for a search with no more grants",
        ),
        Figure(
            name="the longest wait of a search over the median one",
            value=max(totals.values(), default=float("inf"))
            / max(median(totals.values()) if totals else 0.0, 1e-9),
            unit="x",
            note=(
                f"all waits of a search together: {min(totals.values(), default=0.0):.0f} to "
                f"{max(totals.values(), default=0.0):.0f} s; they ended after "
                f"{min(ended_s, default=0.0):.0f} to {max(ended_s, default=0.0):.0f} s"
            ),
        ),
    ]
