"""How commands print: one option for the format, one kind of console."""

import click
from rich.console import Console

FORMAT = click.option(
    "--format",
    "output_format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How the result is printed on standard output.",
)


def output_console(*, stderr: bool = False) -> Console:
    """A console that leaves numbers and paths as they are."""
    return Console(stderr=stderr, highlight=False, soft_wrap=False)
