"""Rows of a CSV text as checked objects, with messages that name the file, the row and the line.

The table knows columns and how a cell is read. It does not know what a row means; the type
that is built from it does, and refuses what cannot be true.
"""

import csv
import io
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, TypeVar

from falcon_ray.errors import InputError

Columns: TypeAlias = Mapping[str, Callable[[str], Any]]
"""How each column's cells are read, in the order of the file; a reader raises ValueError."""

T = TypeVar("T")


def read_table(text: str, file: str, columns: Columns, build: Callable[..., T]) -> tuple[T, ...]:
    """Build one object from every row.

    Args:
        text: The CSV text; its first line must name exactly these columns in this order.
        file: Its name, for messages.
        columns: The first one names the row in messages.
        build: Takes a row's values by column name, and raises InputError for a bad one.

    Raises:
        InputError: A column, a cell or a row does not fit.
    """
    reader = csv.DictReader(io.StringIO(text))
    header = list(reader.fieldnames or ())
    if header != list(columns):
        raise InputError(
            f"{file} must have the columns {','.join(columns)}, got {','.join(header)}"
        )
    built: list[T] = []
    for row in reader:
        try:
            built.append(build(**_values(row, columns)))
        except InputError as error:
            raise InputError(
                f"{error}; check the row {row[header[0]]} in {file}, line {reader.line_num}"
            ) from None
    return tuple(built)


def number_or_none(cell: str) -> float | None:
    """A number, or None for an empty cell."""
    return float(cell) if cell else None


def text_or_none(cell: str) -> str | None:
    """The text, or None for an empty cell."""
    return cell or None


def _values(row: Mapping[str | Any, str | Any], columns: Columns) -> dict[str, Any]:
    if len(row) != len(columns) or None in row.values():
        raise InputError(f"a row has {len(columns)} cells")
    values: dict[str, Any] = {}
    for column, read in columns.items():
        try:
            values[column] = read(row[column])
        except ValueError:
            raise InputError(f"{column} cannot be {row[column]!r}") from None
    return values
