"""Constraints between dimensions, written as expressions such as `cpu_cores * replicas <= 8`.

Expressions come from files and command lines, so they are evaluated by `simpleeval`, without
functions and attributes: they cannot reach Python. A constraint is evaluated once per
combination of the dimensions that it names, not once per configuration.
"""

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import simpleeval  # pyright: ignore[reportMissingTypeStubs]

from falcon_ray.errors import InputError
from falcon_ray.space.dimension import Value


@dataclass(frozen=True, slots=True)
class Constraint:
    """A condition over the values of one configuration.

    Attributes:
        expression: Names of dimensions, numbers, strings, arithmetic, comparisons, `and`, `or`.
        names: The dimensions that the expression names, in order of appearance.

    Raises:
        InputError: The expression does not parse or names nothing.
    """

    expression: str
    names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        try:
            tree = ast.parse(self.expression.strip(), mode="eval")
        except SyntaxError as error:
            raise InputError(
                f"constraint {self.expression!r} is no expression ({error.msg}); "
                "write one such as 'cpu_cores * replicas <= 8'"
            ) from None
        names = dict.fromkeys(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
        if not names:
            raise InputError(f"constraint {self.expression!r} names no dimension")
        object.__setattr__(self, "names", tuple(names))

    def check_names(self, known: Sequence[str]) -> None:
        """Raise `InputError` when the expression names a dimension that does not exist."""
        for name in self.names:
            if name not in known:
                raise InputError(
                    f"constraint {self.expression!r} names {name!r}, which is no dimension of "
                    f"this space: {', '.join(known)}"
                )

    def holds(self, values: Mapping[str, Value]) -> bool:
        """Whether the condition holds for these values.

        Raises:
            InputError: The expression cannot be evaluated (a forbidden construct, or types
                that do not compare).
        """
        try:
            return bool(
                simpleeval.simple_eval(  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
                    self.expression,
                    names={name: values[name] for name in self.names},
                    functions={},
                    allowed_attrs={},
                )
            )
        except (
            simpleeval.InvalidExpression,
            ArithmeticError,
            LookupError,
            TypeError,
            ValueError,
        ) as error:
            raise InputError(
                f"constraint {self.expression!r} cannot be evaluated: {error}"
            ) from None
