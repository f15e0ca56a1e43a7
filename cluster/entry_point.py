"""The command line's outermost frame: what an error ends it with.

Exit codes: 0 done, 1 a mistake of ours, 2 bad input or not confirmed, 4 quota, capacity,
permission or no cluster, 6 over budget; submit ends with the search's own.
"""

import sys
from collections.abc import Sequence
from typing import NoReturn

import click
from botocore.exceptions import BotoCoreError, ClientError

from cluster.aws_errors import explained
from cluster.commands import commands
from cluster.surroundings import Surroundings
from falcon_ray.errors import ClusterError, FalconRayError

_INTERRUPTED = 130  # what a shell says of a process that Ctrl-C ended


def main(
    arguments: Sequence[str] | None = None, surroundings: Surroundings | None = None
) -> NoReturn:
    """Run one command and end the process; errors that can be explained end in one line."""
    try:
        code = commands.main(
            args=None if arguments is None else list(arguments),
            prog_name="python -m cluster",
            standalone_mode=False,
            obj=surroundings or Surroundings(),
        )
    except FalconRayError as error:
        _fail(str(error), error.exit_code)
    except (BotoCoreError, ClientError) as error:
        _fail(str(explained(error, doing="calling AWS")), ClusterError.exit_code)
    except click.exceptions.Abort:
        _fail("interrupted; run the command again to go on, or down to undo", _INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    # Without standalone mode click returns what --help and ctx.exit() would have ended it with.
    sys.exit(code if isinstance(code, int) else 0)


def _fail(reason: str, exit_code: int) -> NoReturn:
    click.echo(f"cluster: {reason}", err=True)
    sys.exit(exit_code)
