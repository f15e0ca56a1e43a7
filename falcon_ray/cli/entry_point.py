"""The command line: which commands there are, and what an error ends them with."""

import sys

import click

from falcon_ray.cli.estimate import estimate
from falcon_ray.cli.profile import profile
from falcon_ray.cli.search import export, report, search
from falcon_ray.cli.store import store
from falcon_ray.errors import FalconRayError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="falcon-ray")
def commands() -> None:
    """Find the serving configuration that buys the most requests per dollar."""


for command in (estimate, search, report, export, profile, store):
    commands.add_command(command)


def main() -> None:
    """Run the command line; errors that falcon_ray can explain end in one line."""
    try:
        commands(standalone_mode=False)
    except FalconRayError as error:
        click.echo(f"falcon-ray: {error}", err=True)
        sys.exit(error.exit_code)
    except click.exceptions.Abort:
        click.echo("falcon-ray: interrupted", err=True)
        sys.exit(5)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
