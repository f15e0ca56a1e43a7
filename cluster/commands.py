"""The verbs of `python -m cluster`: each reads its options, calls one function, and prints.

Verbs import what makes and reaches clusters when they run, so that planning and --help load
nothing of it.
"""

import contextlib
import dataclasses
import json
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
from rich.console import Console

from cluster.clients import Clients
from cluster.hardware import checked_rows, known_rows
from cluster.plan import Planning, make_plan
from cluster.plan_text import catalogue_json, plan_json, print_catalogue, print_plan
from cluster.prices import Priced, known_prices, on_demand_prices
from cluster.spec import ClusterSpec
from cluster.target import DRY_RUN, JSON, REGION, YES, Target, of_file, of_option
from falcon_ray.errors import ClusterError
from falcon_ray.space.catalogue import Catalogue, InstanceStatus

if TYPE_CHECKING:
    from cluster.lifecycle import Known


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def commands() -> None:
    """Make a Ray cluster of several GPU types on EC2, search on it, and leave nothing behind.

    FILE is the cluster's file, cluster/cluster.yaml where it is left out.
    """


@commands.command()
@of_file
@JSON
def plan(target: Target, *, as_json: bool) -> None:
    """Show what would be made and what it costs; change nothing.

    Ends with 4 or 6 where up would refuse.
    """
    spec = target.spec()
    planning = _planned(spec, target.connect(spec.region), target)
    if as_json:
        _print_json(plan_json(planning, target.outside.now().date()))
    else:
        print_plan(_console(), planning, target.outside.now().date())
    _raise_refusals(planning)


@commands.command()
@of_file
@DRY_RUN
@YES
@JSON
def up(target: Target, *, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Make the cluster, or finish what was begun; asks before it spends anything."""
    spec = target.spec()
    clients = target.connect(spec.region)
    planning = _planned(spec, clients, target)
    if not as_json:
        print_plan(_console(), planning, target.outside.now().date())
    _raise_refusals(planning)
    if dry_run:
        from cluster.provision import steps

        if as_json:
            shown = plan_json(planning, target.outside.now().date())
            _print_json({**shown, "steps": list(steps(planning.plan))})
        else:
            _print_lines("would", steps(planning.plan), nothing="there is nothing to do")
        return
    worst = planning.costs.worst_usd_per_hour
    target.confirm(f"Make it, for at most {worst:.2f} USD/h?", yes=yes)
    from cluster.lifecycle import bring_up, known

    cluster = known(spec.name, clients, target.profile)
    made, head = bring_up(planning.plan, cluster, now=target.outside.now(), say=_progress)
    if as_json:
        _print_json({**dataclasses.asdict(made), "head": head})
    else:
        click.echo(f"{spec.name} is up, its head is {head}; results go to {made.bucket}")
        click.echo(f"its nodes end themselves at {made.expires_at:%F %H:%M} UTC")
        click.echo("next: python -m cluster submit -- ARGUMENTS; python -m cluster down ends it")


@commands.command()
@of_file
@JSON
def status(target: Target, *, as_json: bool) -> None:
    """Show the cluster's nodes, what it has cost, and how long it has left."""
    from cluster.provision import provisioned
    from cluster.state.directory import StateDirectory
    from cluster.status import status as status_of

    spec = target.spec()
    clients = target.connect(spec.region)
    made = provisioned(spec.name, clients, StateDirectory.of(spec.name))
    found = status_of(made, clients, now=target.outside.now())
    if as_json:
        _print_json(dataclasses.asdict(found))
    else:
        click.echo(str(found))


@commands.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, required=True, type=click.UNPROCESSED)
@of_option
def submit(target: Target, *, arguments: tuple[str, ...]) -> int:
    """Run a search on the cluster and follow it: submit -- --model module:function ...

    Takes the options of falcon-ray search and ends with the search's own exit code. Ctrl-C stops
    following, not the search.
    """
    from cluster.lifecycle import submit as submit_to

    return submit_to(arguments, _known(target))


@commands.command()
@click.argument("job", required=False)
@of_option
def logs(target: Target, *, job: str | None) -> int:
    """Follow the log of a JOB, or of the latest, and end with its exit code."""
    from cluster.lifecycle import follow

    return follow(job, _known(target))


@commands.command()
@of_file
def tunnel(target: Target) -> None:
    """Open the dashboard on a loopback address, until Ctrl-C."""
    from cluster.lifecycle import dashboard_of

    with dashboard_of(_known(target)) as (_, address), contextlib.suppress(KeyboardInterrupt):
        click.echo(f"{address}  (Ctrl-C closes it)")
        signal.pause()


@commands.command()
@of_file
@DRY_RUN
@YES
@JSON
@click.option("--delete-bucket", is_flag=True, help="Delete the results too.")
def down(target: Target, *, dry_run: bool, yes: bool, as_json: bool, delete_bucket: bool) -> None:
    """End every node and remove all that was made, except for the results bucket."""
    from cluster.lifecycle import bring_down
    from cluster.teardown import prospect

    cluster = _known(target)
    if dry_run:
        left = prospect(cluster.name, cluster.clients, cluster.state, delete_bucket=delete_bucket)
        if as_json:
            _print_json({"would_remove": list(left)})
        else:
            _print_lines("would remove", left, nothing=f"there is nothing of {cluster.name}")
        return
    bucket = "its results too" if delete_bucket else "all but its results"
    target.confirm(f"Remove {cluster.name} in {cluster.clients.region}, {bucket}?", yes=yes)
    torn_down = bring_down(cluster, delete_bucket=delete_bucket)
    if as_json:
        _print_json(dataclasses.asdict(torn_down))
        return
    _print_lines("removed", torn_down.removed, nothing=f"there was nothing of {cluster.name}")
    _print_lines("kept", torn_down.kept, nothing="nothing is left")


@commands.command()
@of_file
@DRY_RUN
@YES
@JSON
@REGION
def reap(target: Target, *, dry_run: bool, yes: bool, as_json: bool, region: str | None) -> None:
    """Remove every cluster of the account and region whose time is over, found by its tags."""
    from cluster.reap import reap as reap_all

    where = region or target.spec().region
    clients = target.connect(where)
    if not dry_run:
        target.confirm(f"Remove all clusters in {where} whose time is over?", yes=yes)
    reaped = reap_all(clients, now=target.outside.now(), dry_run=dry_run)
    if as_json:
        _print_json([dataclasses.asdict(each) for each in reaped])
    else:
        done = "would remove" if dry_run else "removed"
        for each in reaped:
            click.echo(f"{each.name} ({each.cluster_id}), over since {each.expired_at:%F %H:%M}:")
            _print_lines(f"  {done}", each.removed, nothing=f"  {done} nothing")
        if not reaped:
            click.echo(f"no cluster's time is over in {where}")
    if left := [line for each in reaped for line in each.left]:
        raise ClusterError(f"not everything could be removed: {'; '.join(left)}; reap again later")


@commands.command()
@of_file
@JSON
@REGION
@click.option("--refresh", is_flag=True, help="Ask AWS for prices and facts, and keep them.")
def catalogue(target: Target, *, as_json: bool, region: str | None, refresh: bool) -> None:
    """List the known instance types with their prices, and how old these are."""
    where = region or target.spec().region
    rows, cache, now = Catalogue.packaged().instances, target.outside.cache(), target.outside.now()
    if refresh:
        clients = target.connect(where)
        rows, about_hardware = checked_rows(rows, clients, cache=cache.hardware, now=now)
        offered = [each for each in rows if each.status is InstanceStatus.ACTIVE]
        new = on_demand_prices(offered, clients, cache=cache.prices, now=now, refresh=True)
        prices, _ = known_prices(rows, where, cache.prices)
        prices, about_prices = {**prices, **new.prices}, new.remarks
    else:
        rows, about_hardware = known_rows(rows, cache.hardware)
        prices, about_prices = known_prices(rows, where, cache.prices)
    priced = Priced(prices, (*about_hardware, *about_prices))
    if as_json:
        _print_json(catalogue_json(rows, priced, where, now.date()))
    else:
        print_catalogue(_console(), rows, priced, where, now.date())


def _planned(spec: ClusterSpec, clients: Clients, target: Target) -> Planning:
    return make_plan(
        spec,
        clients,
        catalogue=Catalogue.packaged(),
        cache=target.outside.cache(),
        now=target.outside.now(),
        find_own_address=target.outside.find_own_address,
    )


def _raise_refusals(planning: Planning) -> None:
    """Say all of them; the last line and the exit code are the first one's."""
    for each in reversed(planning.refusals[1:]):
        click.echo(f"cluster: {each}", err=True)
    if planning.refusals:
        raise planning.refusals[0]


def _known(target: Target) -> "Known":
    from cluster.lifecycle import known

    spec = target.spec()
    return known(spec.name, target.connect(spec.region), target.profile)


def _progress(line: str) -> None:
    """What is said while something takes its time: not on standard output, which holds results."""
    click.echo(line, err=True)


def _print_lines(done: str, things: Sequence[str], *, nothing: str) -> None:
    for each in things:
        click.echo(f"{done} {each}")
    if not things:
        click.echo(nothing)


def _print_json(document: object) -> None:
    click.echo(json.dumps(document, indent=2, default=str))


def _console() -> Console:
    return Console(highlight=False, soft_wrap=False)
