"""What commands take from outside: an account, a clock, the caller's address, answers, files.

It is the one place that says where these come from; commands that are given others, as tests do,
never know.
"""

import datetime as dt
import sys
from collections.abc import Callable
from dataclasses import dataclass

import click

from cluster.aws_errors import calling
from cluster.clients import Clients
from cluster.own_address import own_address
from cluster.user_cache import UserCache
from falcon_ray.errors import InputError


def _connect(region: str, profile: str | None) -> Clients:
    with calling("connecting to AWS"):
        return Clients.connect(region, profile=profile)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _confirm(question: str) -> bool:
    """Ask, where there is somebody to answer; No is the default.

    Raises:
        InputError: There is nobody.
    """
    if not sys.stdin.isatty():
        raise InputError(f"nobody can answer {question!r} here; give --yes if it shall be done")
    return click.confirm(question, default=False, err=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Where commands get what is not in their arguments.

    Attributes:
        connect: Clients for a region, with the credentials of a profile or the usual ones.
        now: The time, with its zone.
        find_own_address: The caller's own network.
        confirm: Asks the user; False unless the answer is yes.
        cache: What was looked up before.
    """

    connect: Callable[[str, str | None], Clients] = _connect
    now: Callable[[], dt.datetime] = _now
    find_own_address: Callable[[], str] = own_address
    confirm: Callable[[str], bool] = _confirm
    cache: Callable[[], UserCache] = UserCache.of_user
