"""Runs on the head: counts what the cluster has cost, and ends it before that is too much.

Usage: python budget_watcher.py --cluster-id ID --region REGION --bucket BUCKET
           --usd-per-hour TYPE/MARKET=USD ... [--also-usd-per-hour USD] [--max-cost-usd USD]

What it has counted it keeps in the bucket, so that nothing is forgotten with the head, and so
that others can read it. It needs boto3 and no other module of ours. It does not know what the
cluster is for, and it does not look prices up.
"""

import argparse
import datetime as dt
import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

PERIOD_S = 30.0
MARGIN_S = 300.0
"""The cluster ends when so much more time would be too much: for one look, and for ending it."""
ID_TAG = "falcon-ray:id"
LIVE = ("pending", "running")
END_TRIES = 5
"""After so many looks the head ends itself, even where it could not end the others."""
_AWS_ERRORS = (BotoCoreError, ClientError)

_log = logging.getLogger("falcon-ray-watcher")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What instances cost.

    Attributes:
        usd_per_hour: By instance type and market, such as "g6.2xlarge/spot".
        also_usd_per_hour: What every instance costs beside: its disk and its public address.
    """

    usd_per_hour: Mapping[str, float]
    also_usd_per_hour: float

    def of(self, kind: str) -> float:
        """What one costs; of one that nobody knows, as much as the dearest."""
        dearest = max(self.usd_per_hour.values(), default=0.0)
        return self.usd_per_hour.get(kind, dearest) + self.also_usd_per_hour


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One instance, from its launch to its end.

    Attributes:
        instance_id: EC2's.
        kind: Instance type and market.
        start_s: When it was launched, in seconds since 1970.
        end_s: When it was first seen to have ended; None while it runs.
    """

    instance_id: str
    kind: str
    start_s: float
    end_s: float | None = None

    def usd(self, rates: Rates, now_s: float) -> float:
        """What it has cost."""
        end_s = now_s if self.end_s is None else self.end_s
        return max(0.0, end_s - self.start_s) / 3600 * rates.of(self.kind)


def kind_of(instance: Mapping[str, Any]) -> str:
    """Type and market of an instance as EC2 describes it."""
    market = "spot" if instance.get("InstanceLifecycle") == "spot" else "on-demand"
    return f"{instance['InstanceType']}/{market}"


def runs_of(
    instances: Iterable[Mapping[str, Any]], before: Sequence[Run], now_s: float
) -> tuple[Run, ...]:
    """What is known of all instances that there ever were.

    Args:
        instances: As EC2 describes them now; it forgets those that ended an hour ago.
        before: What was known at the last look.
        now_s: The time of this look.
    """
    runs = {each.instance_id: each for each in before}
    live: set[str] = set()
    for each in instances:
        found = Run(
            instance_id=each["InstanceId"],
            kind=kind_of(each),
            start_s=each["LaunchTime"].timestamp(),
        )
        runs.setdefault(found.instance_id, found)
        if each["State"]["Name"] in LIVE:
            live.add(found.instance_id)
    return tuple(
        replace(each, end_s=now_s) if each.end_s is None and each.instance_id not in live else each
        for each in runs.values()
    )


def spent_usd(runs: Iterable[Run], rates: Rates, now_s: float) -> float:
    """What all of them have cost."""
    return sum(each.usd(rates, now_s) for each in runs)


def usd_per_hour(runs: Iterable[Run], rates: Rates) -> float:
    """What those that run cost."""
    return sum(rates.of(each.kind) for each in runs if each.end_s is None)


def must_end(runs: Sequence[Run], rates: Rates, *, now_s: float, max_cost_usd: float) -> bool:
    """Whether going on would soon have cost more than is allowed."""
    soon_usd = usd_per_hour(runs, rates) * MARGIN_S / 3600
    return spent_usd(runs, rates, now_s) + soon_usd >= max_cost_usd


def report_key(cluster_id: str) -> str:
    """Where in the bucket the count is kept."""
    return f"clusters/{cluster_id}/spend.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What is kept in the bucket.

    Attributes:
        at_s: When it was written, in seconds since 1970.
        runs: All instances so far.
        rates: What they cost.
        max_cost_usd: The limit; None where there is none.
    """

    at_s: float
    runs: tuple[Run, ...]
    rates: Rates
    max_cost_usd: float | None

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON values, with what it amounts to."""
        return asdict(self) | {
            "at": dt.datetime.fromtimestamp(self.at_s, dt.UTC).isoformat(timespec="seconds"),
            "spent_usd": spent_usd(self.runs, self.rates, self.at_s),
            "usd_per_hour": usd_per_hour(self.runs, self.rates),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Report":
        """Read what `to_json` wrote."""
        return cls(
            at_s=record["at_s"],
            runs=tuple(Run(**each) for each in record["runs"]),
            rates=Rates(**record["rates"]),
            max_cost_usd=record["max_cost_usd"],
        )


def instances_of(ec2: Any, cluster_id: str) -> list[Mapping[str, Any]]:  # noqa: ANN401 - boto3's
    """All instances of a cluster that EC2 still knows."""
    pages = ec2.get_paginator("describe_instances").paginate(
        Filters=[{"Name": f"tag:{ID_TAG}", "Values": [cluster_id]}]
    )
    return [
        each
        for page in pages
        for reservation in page["Reservations"]
        for each in reservation["Instances"]
    ]


def read_report(s3: Any, bucket: str, cluster_id: str) -> Report | None:  # noqa: ANN401 - boto3's
    """The last count of a cluster; None where there is none yet."""
    try:
        body = s3.get_object(Bucket=bucket, Key=report_key(cluster_id))["Body"].read()
    except ClientError as error:
        if error.response["Error"]["Code"] == "NoSuchKey":
            return None
        raise
    return Report.from_json(json.loads(body))


class Watcher:
    """Looks at the cluster again and again.

    Args:
        ec2: A client of boto3.
        s3: Likewise.
        cluster_id: As all instances are tagged.
        bucket: Where the count is kept.
        rates: What instances cost.
        max_cost_usd: The limit; None only to count.
        shut_down: Ends this machine, however.
        clock: Seconds since 1970, as EC2 counts launches.
    """

    def __init__(
        self,
        ec2: Any,  # noqa: ANN401 - made at run time by boto3
        s3: Any,  # noqa: ANN401 - likewise
        *,
        cluster_id: str,
        bucket: str,
        rates: Rates,
        max_cost_usd: float | None,
        shut_down: Callable[[], object],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ec2 = ec2
        self._s3 = s3
        self._cluster_id = cluster_id
        self._bucket = bucket
        self._rates = rates
        self._max_cost_usd = max_cost_usd
        self._shut_down = shut_down
        self._clock = clock
        self._runs: tuple[Run, ...] | None = None
        self._knows_earlier = False
        self._n_tries = 0

    def look(self) -> bool:
        """Count once, keep the count, and end the cluster where it must end.

        Returns:
            Whether to look again. Where AWS does not answer, what ran is taken to run still.

        Raises:
            BotoCoreError, ClientError: EC2 does not answer, and never has; nothing can be counted.
        """
        now_s = self._clock()
        before = (*(self._runs or ()), *self._earlier())
        try:
            runs = runs_of(instances_of(self._ec2, self._cluster_id), before, now_s)
        except _AWS_ERRORS as error:
            if not before:
                raise
            runs = before
            _log.warning("EC2 does not say what runs, so that all is taken to: %s", error)
        self._runs = runs
        limit = self._max_cost_usd
        self._keep(Report(at_s=now_s, runs=runs, rates=self._rates, max_cost_usd=limit))
        if limit is None or not must_end(runs, self._rates, now_s=now_s, max_cost_usd=limit):
            return True
        _log.warning(
            "the cluster has cost %.2f USD of %.2f; it ends here",
            spent_usd(runs, self._rates, now_s),
            limit,
        )
        return not self._end([each for each in runs if each.end_s is None])

    def _earlier(self) -> Sequence[Run]:
        """What an earlier watcher knew, once it can be read; nothing is kept over it before."""
        if self._knows_earlier:
            return ()
        report = None
        try:
            report = read_report(self._s3, self._bucket, self._cluster_id)
        except _AWS_ERRORS as error:
            _log.warning("the earlier count does not come from the bucket: %s", error)
            return ()
        except (ValueError, KeyError, TypeError) as error:
            _log.warning("the earlier count cannot be understood, so it is lost: %s", error)
        self._knows_earlier = True
        known = {each.instance_id for each in self._runs or ()}
        earlier = () if report is None else report.runs
        return [each for each in earlier if each.instance_id not in known]

    def _keep(self, report: Report) -> None:
        if not self._knows_earlier:
            return
        try:
            self._s3.put_object(
                Bucket=self._bucket,
                Key=report_key(self._cluster_id),
                Body=json.dumps(report.to_json()).encode(),
                ContentType="application/json",
            )
        except _AWS_ERRORS as error:
            _log.warning("the count is not in the bucket: %s", error)

    def _end(self, runs: Sequence[Run]) -> bool:
        """End all nodes at once, so that the head starts no new ones, and then this one.

        Returns:
            Whether it is over; else others still run, and it is this node that can end them.
        """
        self._n_tries += 1
        if self._is_refused([each.instance_id for each in runs]):
            # One that EC2 has forgotten spares all others. The head is the first that was launched.
            _, *others = sorted(runs, key=lambda each: each.start_s)
            refused = [each for each in others if self._is_refused([each.instance_id])]
            if refused and self._n_tries < END_TRIES:
                return False
        self._shut_down()
        return True

    def _is_refused(self, instance_ids: Sequence[str]) -> bool:
        """Whether EC2 does not end them."""
        if not instance_ids:
            return False
        try:
            self._ec2.terminate_instances(InstanceIds=list(instance_ids))
        except _AWS_ERRORS as error:
            _log.warning("EC2 does not end %s: %s", ", ".join(instance_ids), error)
            forgotten = isinstance(error, ClientError) and (
                error.response["Error"]["Code"] == "InvalidInstanceID.NotFound"
            )
            return not forgotten or len(instance_ids) > 1
        return False


def _shut_down() -> None:
    """Power off, which terminates an instance of ours."""
    subprocess.run(["/sbin/shutdown", "-h", "now"], check=False)


def tell_systemd(state: str) -> None:
    """Say how it goes to systemd, where that has started this process; sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        name = f"\0{address[1:]}" if address.startswith("@") else address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
            notified.sendto(state.encode(), name)


def _rate(text: str) -> tuple[str, float]:
    kind, _, usd = text.partition("=")
    return kind, float(usd)


def main(arguments: Sequence[str] | None = None) -> None:
    """Look until the cluster ends, or this process does."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cluster-id", required=True)
    parser.add_argument("--region", required=True)
    parser.add_argument("--bucket", required=True)
    parser.add_argument("--usd-per-hour", type=_rate, action="append", required=True)
    parser.add_argument("--also-usd-per-hour", type=float, default=0.0)
    parser.add_argument("--max-cost-usd", type=float)
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    config = Config(
        retries={"mode": "standard", "max_attempts": 3}, connect_timeout=5, read_timeout=20
    )
    watcher = Watcher(
        boto3.client("ec2", region_name=given.region, config=config),
        boto3.client("s3", region_name=given.region, config=config),
        cluster_id=given.cluster_id,
        bucket=given.bucket,
        rates=Rates(
            usd_per_hour=dict(given.usd_per_hour), also_usd_per_hour=given.also_usd_per_hour
        ),
        max_cost_usd=given.max_cost_usd,
        shut_down=_shut_down,
    )
    try:
        while watcher.look():
            tell_systemd("READY=1\nWATCHDOG=1")
            time.sleep(PERIOD_S)
    except _AWS_ERRORS as error:
        # Started anew, perhaps with credentials that were not there yet.
        sys.exit(f"EC2 does not say what runs: {error}")


if __name__ == "__main__":
    main()
