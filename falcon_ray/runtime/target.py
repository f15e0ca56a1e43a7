"""What is served in a trial: a PyTorch model in our own application, or any Serve application.

A target crosses processes as plain values; what it names is imported where it is used, and so is
torch, which takes seconds and hundreds of megabytes that a process without a model does without.
"""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from ray import serve

from falcon_ray.errors import InputError
from falcon_ray.runtime.load.transport import HttpBody
from falcon_ray.runtime.model_reference import ModelReference, one_line
from falcon_ray.runtime.placement import batching
from falcon_ray.runtime.references import Reference, load_optional, load_reference
from falcon_ray.space.configuration import Configuration, ConfigurationSpace

SERVE_AT_ONCE = 5
"""Requests that Serve gives a replica at once where its deployment does not say."""

TRIAL_SHUTDOWN_S = 0.5
"""A trial's replicas have nothing left to answer when the app is deleted."""


class Target(Protocol):
    """Something that can be deployed in any configuration of its space."""

    @property
    def name(self) -> str:
        """Short name, for people."""
        ...

    @property
    def method(self) -> str:
        """Method of the ingress that answers the example request through a handle."""
        ...

    @property
    def reports_facts(self) -> bool:
        """Whether the ingress is our own replica, with the methods `facts` and `load`.

        Only then can it be loaded from inside: path `replica`, and the model's own capacity.
        """
        ...

    @property
    def response_metrics(self) -> Reference | None:
        """A function from one response to numbers by metric name, or None."""
        ...

    def concurrency(self, configuration: Configuration) -> int:
        """Requests in flight that keep every replica busy, and its batch queue full.

        Raises:
            InputError: The user's function raises or returns no positive whole number.
        """
        ...

    def http_body(self, request: Any) -> HttpBody:  # noqa: ANN401 - the target's own
        """The example request as the body of an HTTP POST.

        Raises:
            InputError: It cannot be one.
        """
        ...

    @property
    def import_path(self) -> str:
        """What a Serve config file imports to build the application."""
        ...

    def arguments(self) -> dict[str, Any]:
        """What it is called with beside `configuration`, as plain values."""
        ...

    def application(
        self, configuration: Configuration, node_ids: Sequence[str] = ()
    ) -> serve.Application:
        """The application in this configuration.

        Args:
            configuration: In which.
            node_ids: Ray nodes that its replicas may be on; any where there are none. One that
                the user builds is placed as the builder says.

        Raises:
            InputError: The user's builder raises or returns something else.
        """
        ...


@dataclass(frozen=True, slots=True)
class ModelTarget:
    """A PyTorch model behind our own replica."""

    model: ModelReference
    method: str = "predict"
    reports_facts: bool = True
    response_metrics: Reference | None = None

    @property
    def name(self) -> str:
        """The factory's name."""
        return self.model.factory.name

    def concurrency(self, configuration: Configuration) -> int:
        """See `Target.concurrency`."""
        return configuration.count("replicas", 1) * batching(configuration).saturating_requests

    def http_body(self, request: Any) -> HttpBody:  # noqa: ANN401 - a Sample
        """See `Target.http_body`; the arrays by the names that the replica knows."""
        from falcon_ray.runtime.torch_app import input_names  # noqa: PLC0415 - see the header
        from falcon_ray.runtime.torch_model import example_inputs  # noqa: PLC0415

        names = input_names(example_inputs(self.model, 1).names, len(request))
        buffer = io.BytesIO()
        np.savez(buffer, **dict(zip(names, request, strict=True)))
        return HttpBody(buffer.getvalue(), "application/octet-stream")

    @property
    def import_path(self) -> str:
        """See `Target.import_path`."""
        return "falcon_ray.runtime.torch_app:build"

    def arguments(self) -> dict[str, Any]:
        """See `Target.arguments`."""
        shape = self.model.input_shape
        return {
            "model": self.model.factory.spec,
            "seed": self.model.seed,
            **({} if shape is None else {"input_shape": list(shape)}),
            **({} if shape is None else {"input_dtype": self.model.input_dtype}),
            **_search_path(self.model.factory),
        }

    def application(
        self, configuration: Configuration, node_ids: Sequence[str] = ()
    ) -> serve.Application:
        """See `Target.application`."""
        from falcon_ray.runtime.torch_app import TorchAppArguments, build  # noqa: PLC0415

        return build(
            TorchAppArguments(
                **self.arguments(),
                configuration=dict(configuration),
                node_ids=list(node_ids),
                graceful_shutdown_s=TRIAL_SHUTDOWN_S,
            )
        )


@dataclass(frozen=True, slots=True)
class AppTarget:
    """Any Serve application: a builder, and what is declared beside it.

    Beside a builder `NAME(configuration) -> serve.Application` its module declares
    `NAME_space()` (a `ConfigurationSpace`, or a mapping from dimension name to values),
    `NAME_request()` (one example request), and optionally `NAME_method` (the ingress method
    that answers it, `__call__` when absent), `NAME_metrics(response)` (numbers by name), and
    `NAME_concurrency(configuration)` (requests in flight that saturate it; when absent, twice
    what its `batch_size` or `concurrency` says, else twice Serve's default, for each of its
    `replicas`).
    """

    builder: Reference
    method: str = "__call__"
    response_metrics: Reference | None = None
    saturated_by: Reference | None = None
    reports_facts: bool = False

    @property
    def name(self) -> str:
        """The builder's name."""
        return self.builder.name

    def concurrency(self, configuration: Configuration) -> int:
        """See `Target.concurrency`."""
        if self.saturated_by is not None:
            declared = call_declared(self.saturated_by, configuration)
            if not isinstance(declared, int) or declared < 1:
                raise InputError(
                    f"{self.saturated_by.name} must return a positive whole number, "
                    f"got {declared!r}"
                )
            return declared
        named = [name for name in ("batch_size", "concurrency") if name in configuration]
        at_once = max((configuration.count(name, 1) for name in named), default=SERVE_AT_ONCE)
        return configuration.count("replicas", 1) * 2 * at_once

    def http_body(self, request: Any) -> HttpBody:  # noqa: ANN401 - the user's own
        """See `Target.http_body`; bytes as they are, anything else as JSON."""
        if isinstance(request, (bytes, bytearray)):
            return HttpBody(bytes(request), "application/octet-stream")
        try:
            return HttpBody(json.dumps(request).encode(), "application/json")
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{self.name}_request() cannot be sent by HTTP: {one_line(error)}; let it return "
                "bytes or what JSON can hold, or give load_path handle"
            ) from error

    @property
    def import_path(self) -> str:
        """See `Target.import_path`."""
        return "falcon_ray.runtime.app_builder:build"

    def arguments(self) -> dict[str, Any]:
        """See `Target.arguments`."""
        return {"builder": self.builder.spec, **_search_path(self.builder)}

    def application(
        self,
        configuration: Configuration,
        node_ids: Sequence[str] = (),  # noqa: ARG002 - the builder places
    ) -> serve.Application:
        """See `Target.application`."""
        make: Callable[[Configuration], object] = load_reference(self.builder)
        try:
            app = make(configuration)
        except Exception as error:  # the user's builder may raise anything
            raise InputError(
                f"{self.builder.spec}({configuration}) failed: {one_line(error)}"
            ) from error
        if not isinstance(app, serve.Application):
            raise InputError(
                f"{self.builder.spec} returned {type(app).__name__}; return the "
                "serve.Application that Deployment.bind() gives"
            )
        return app


@dataclass(frozen=True, slots=True)
class Declared:
    """A target with what was declared or found beside it."""

    target: Target
    request: Any
    space: ConfigurationSpace | None


def declared_app(builder: Reference) -> Declared:
    """Read what stands beside a builder, and try the builder on the space's first member.

    Raises:
        InputError: Something is missing or fails.
    """
    if not callable(load_reference(builder)):
        raise InputError(f"{builder.spec} is no function; give a builder of serve.Application")
    space = _call(builder.sibling("_space"), "the configuration space of the application")
    if not isinstance(space, ConfigurationSpace):
        if not isinstance(space, dict):
            raise InputError(
                f"{builder.name}_space() must return a ConfigurationSpace or a dict of values by "
                f"dimension name, got {type(space).__name__}"
            )
        try:
            space = ConfigurationSpace.of(space)
        except (AttributeError, TypeError) as error:  # no list of values, or no text as a name
            raise InputError(
                f"{builder.name}_space() must give a list of values for each dimension's name, "
                f"got {space!r}"
            ) from error
    request = _call(builder.sibling("_request"), "one example request")
    metrics, concurrency = builder.sibling("_metrics"), builder.sibling("_concurrency")
    target = AppTarget(
        builder,
        method=load_optional(builder.sibling("_method")) or "__call__",
        response_metrics=None if load_optional(metrics) is None else metrics,
        saturated_by=None if load_optional(concurrency) is None else concurrency,
    )
    target.application(space.candidates[0])
    target.concurrency(space.candidates[0])
    return Declared(target, request, space)


def _search_path(reference: Reference) -> dict[str, str]:
    return {"search_path": reference.search_path} if reference.search_path else {}


def _call(reference: Reference, what: str) -> Any:  # noqa: ANN401 - whatever the user returns
    make = load_optional(reference)
    if make is None:
        raise InputError(f"define {reference.name}() beside the builder: {what}")
    return call_declared(reference)


def call_declared(reference: Reference, *arguments: object) -> Any:  # noqa: ANN401 - the user's
    """Call a function that the user declared.

    Raises:
        InputError: It raises.
    """
    try:
        return load_reference(reference)(*arguments)
    except InputError:
        raise
    except Exception as error:  # the user's function may raise anything
        raise InputError(f"{reference.spec}() failed: {one_line(error)}") from error
