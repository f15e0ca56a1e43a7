"""Accounts to plan in: moto's EC2, SSM and STS, with the services that moto lacks faked."""

# ruff: noqa: ANN401 - clients of boto3 are typed by what it makes at run time

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError, EndpointConnectionError

PLAN_AMI = "ami-dca37ea5"  # of those that moto knows, one of Ubuntu
PLAN_AMI_PARAMETER = "/ours/ami-id"
G_ON_DEMAND, G_SPOT, STANDARD = "L-DB2E81BA", "L-3819A6DF", "L-1216C47A"


def denied(operation: str, action: str) -> ClientError:
    message = f"User: arn:aws:iam::1:user/u is not authorized to perform: {action} on resource: *"
    return ClientError({"Error": {"Code": "AccessDeniedException", "Message": message}}, operation)


def unreachable() -> EndpointConnectionError:
    return EndpointConnectionError(endpoint_url="https://somewhere.amazonaws.com/")


def quota(code: str, name: str, vcpus: float) -> dict[str, Any]:
    return {"QuotaCode": code, "QuotaName": name, "Value": vcpus}


def quotas_of(
    *, g_on_demand: float = 64, g_spot: float = 64, standard: float = 64
) -> list[dict[str, Any]]:
    return [
        quota(G_ON_DEMAND, "Running On-Demand G and VT instances", g_on_demand),
        quota(G_SPOT, "All G and VT Spot Instance Requests", g_spot),
        quota(STANDARD, "Running On-Demand Standard (A, C, D, M, R, T, Z) instances", standard),
    ]


@dataclass
class PagesOf:
    """A paginator whose pages a function of its arguments gives."""

    pages: Any

    def paginate(self, **arguments: Any) -> Iterator[Mapping[str, Any]]:
        yield from self.pages(**arguments)


@dataclass
class PlanQuotas:
    """Service Quotas of an account: what it has of its own, over the defaults."""

    own: Sequence[Mapping[str, Any]] = field(default_factory=quotas_of)
    defaults: Sequence[Mapping[str, Any]] = ()
    list_error: Exception | None = None
    error: Exception | None = None

    def get_paginator(self, call: str) -> PagesOf:
        records = self.own if call == "list_service_quotas" else self.defaults

        def pages(**_: Any) -> Iterator[Mapping[str, Any]]:
            if error := self.list_error or self.error:
                raise error
            for each in records:  # one a page, so that all pages must be read
                yield {"Quotas": [each]}

        return PagesOf(pages)

    def get_service_quota(self, *, ServiceCode: str, QuotaCode: str) -> Mapping[str, Any]:  # noqa: N803
        assert ServiceCode == "ec2"
        if self.error:
            raise self.error
        return {"Quota": next(each for each in self.own if each["QuotaCode"] == QuotaCode)}


def product(region: str, *hourly_usd: str, unit: str = "Hrs") -> dict[str, Any]:
    dimensions = {
        str(i): {"unit": unit, "pricePerUnit": {"USD": usd}} for i, usd in enumerate(hourly_usd)
    }
    return {
        "product": {"attributes": {"regionCode": region}},
        "terms": {"OnDemand": {"term": {"priceDimensions": dimensions}}},
    }


@dataclass
class PlanPricing:
    """A Price List: products by instance type; `asked` says for what it was asked."""

    products: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    error: Exception | None = None
    asked: list[dict[str, str]] = field(default_factory=list)

    def get_paginator(self, call: str) -> PagesOf:
        assert call == "get_products"

        def pages(*, ServiceCode: str, Filters: Any) -> Iterator[Mapping[str, Any]]:  # noqa: N803
            wanted = {each["Field"]: each["Value"] for each in Filters}
            self.asked.append(wanted)
            if self.error:
                raise self.error
            assert ServiceCode == "AmazonEC2"
            for each in self.products.get(wanted["instanceType"], ()):
                region = each["product"]["attributes"]["regionCode"]
                if wanted.get("regionCode", region) == region:
                    yield {"PriceList": [json.dumps(each)]}

        return PagesOf(pages)


class Without:
    """A client whose named calls fail; all others are the real one's."""

    def __init__(self, client: Any, **errors: Exception) -> None:
        self._client, self._errors = client, errors

    def __getattr__(self, name: str) -> Any:
        if name not in self._errors:
            return getattr(self._client, name)

        def fail(**_: Any) -> Any:
            raise self._errors[name]

        return fail

    def get_paginator(self, call: str) -> Any:
        if call not in self._errors:
            return self._client.get_paginator(call)

        def pages(**_: Any) -> Iterator[Mapping[str, Any]]:
            raise self._errors[call]
            yield {}

        return PagesOf(pages)


class Stubborn:
    """A client whose named paginator gives these pages."""

    def __init__(self, client: Any, call: str, pages: Sequence[Mapping[str, Any]]) -> None:
        self._client, self._call, self._pages = client, call, pages

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def get_paginator(self, call: str) -> Any:
        if call == self._call:
            return PagesOf(lambda **_: iter(self._pages))
        return self._client.get_paginator(call)
