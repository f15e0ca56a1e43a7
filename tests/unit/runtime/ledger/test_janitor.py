import pytest

from falcon_ray.runtime.ledger.janitor import GRACE_S, Janitor

TRIAL = "falcon-0a1b2c-trial_7"
LEASE = f"{TRIAL}/9f"


class Serve:
    """Serve, as far as the janitor sees it."""

    def __init__(self, *apps: str) -> None:
        self.apps = list(apps)

    def janitor(self) -> Janitor:
        return Janitor(lambda: self.apps, self.apps.remove)


def test_an_app_whose_trial_is_gone_is_deleted_after_a_while() -> None:
    serve = Serve(TRIAL)
    janitor = serve.janitor()
    assert janitor.sweep([], 100.0) == ()
    assert janitor.sweep([], 100.0 + GRACE_S - 1) == ()
    assert janitor.sweep([], 100.0 + GRACE_S) == (TRIAL,)
    assert serve.apps == []


def test_an_app_with_a_lease_stays() -> None:
    serve = Serve(TRIAL)
    janitor = serve.janitor()
    for now_s in (0.0, GRACE_S, 10 * GRACE_S):
        assert janitor.sweep([LEASE], now_s) == ()
    assert serve.apps == [TRIAL]


def test_the_while_begins_anew_once_the_app_had_a_lease_again() -> None:
    janitor = Serve(TRIAL).janitor()
    janitor.sweep([], 0.0)
    janitor.sweep([LEASE], GRACE_S)
    assert janitor.sweep([], GRACE_S + 1) == ()
    assert janitor.sweep([], 2 * GRACE_S) == ()


@pytest.mark.parametrize("name", ["default", "falcon-demo-app", "my-falcon-0a1b2c-x", "resnet50"])
def test_what_no_trial_deployed_is_never_touched(name: str) -> None:
    serve = Serve(name)
    janitor = serve.janitor()
    janitor.sweep([], 0.0)
    assert janitor.sweep([], 10 * GRACE_S) == ()
    assert serve.apps == [name]
