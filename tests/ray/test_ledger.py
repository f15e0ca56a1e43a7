"""The ledger as an actor of the session's Ray: leases, its own death, and what is left behind."""

import os
import signal
import threading

import pytest
import ray
from ray import serve

from falcon_ray.errors import ClusterError
from falcon_ray.runtime import serve_apps
from falcon_ray.runtime.cluster_ledger import cluster_ledger, renew_ledger
from falcon_ray.runtime.job_package import own_version
from falcon_ray.runtime.ledger.client import LeaseTerms, LedgerClient, leased
from falcon_ray.runtime.ledger.contract import AskState
from falcon_ray.runtime.testbed.leftovers import live_actors
from falcon_ray.space.demand import Demand
from tests.ray.processes import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("no_app_left")]

TERMS = LeaseTerms(search_id="0a1b2c")
ONE_CORE = Demand(cpu_cores=1)


@serve.deployment(graceful_shutdown_timeout_s=0.5, graceful_shutdown_wait_loop_s=0.5)
class Orphan:
    def __call__(self) -> str:
        return "anybody there?"


@pytest.fixture
def ledger(ray_address: str) -> LedgerClient:  # noqa: ARG001 - Ray has to be there
    return LedgerClient(cluster_ledger)


def _ledger_pid() -> int:
    pids = [each.pid for each in live_actors() if each.class_name == "ClusterLedger" and each.pid]
    return pids[0] if pids else 0


def test_a_trial_on_cpus_has_its_node_to_itself_until_it_gives_it_back(
    ledger: LedgerClient,
) -> None:
    told: list[AskState] = []
    waits, granted = threading.Event(), threading.Event()

    def tell(state: AskState) -> None:
        told.append(state)
        waits.set()

    def wait_in_line() -> None:
        with leased(TERMS.ask("falcon-0a1b2c-second", ONE_CORE), ledger, on_state=tell):
            granted.set()

    with leased(TERMS.ask("falcon-0a1b2c-first", ONE_CORE), ledger) as lease:
        assert lease.node_ids == (ray.get_runtime_context().get_node_id(),)
        thread = threading.Thread(target=wait_in_line)
        thread.start()
        assert waits.wait(30)
        assert not granted.is_set()
    assert granted.wait(30)
    thread.join(30)
    assert told == [AskState.WAITING]


def test_a_ledger_that_died_takes_leases_back_from_the_trials_that_hold_them(
    ledger: LedgerClient,
) -> None:
    ask = TERMS.ask("falcon-0a1b2c-held", ONE_CORE)
    with leased(ask, ledger, heartbeat_s=0.5) as lease:
        before = _ledger_pid()
        os.kill(before, signal.SIGKILL)
        wait_until(
            lambda: _ledger_pid() not in (0, before), "the ledger is started again", timeout_s=60
        )
        other = TERMS.ask("falcon-0a1b2c-other", ONE_CORE)
        # It is asked for the node that is held, and says so: it knows of the lease again.
        wait_until(
            lambda: ledger.alive(ask, lease.node_ids).state is AskState.GRANTED,
            "the lease is known",
            timeout_s=30,
        )
        assert ledger.alive(other, ()).state is AskState.WAITING
        ledger.give_back(other.lease_id)
        lease.check()


def test_an_application_whose_trial_is_gone_is_deleted(ledger: LedgerClient) -> None:
    name = "falcon-0a1b2c-orphan"
    ledger.give_back("falcon-0a1b2c-nobody/1")  # from its first call on it looks around
    serve_apps.deploy(Orphan.bind(), name)
    wait_until(lambda: name in serve_apps.app_names(), "the app is there", timeout_s=30)
    wait_until(lambda: name not in serve_apps.app_names(), "the app is deleted", timeout_s=60)


def test_a_ledger_of_another_version_is_replaced_once_no_search_uses_it(
    ledger: LedgerClient,
) -> None:
    before = _ledger_pid()
    renew_ledger(own_version())
    assert _ledger_pid() == before
    ledger.join("0a1b2c")
    with pytest.raises(
        ClusterError, match=r"searches of falcon_ray .* \(1\) are at work .* this is 9\.9\.9"
    ):
        renew_ledger("9.9.9")
    ledger.leave("0a1b2c")
    renew_ledger("9.9.9")
    cluster_ledger()
    wait_until(lambda: _ledger_pid() not in (0, before), "another takes its place", timeout_s=60)
