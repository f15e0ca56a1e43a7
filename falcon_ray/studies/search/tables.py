"""Tables of users: every method on every task that they hold, without goals.

No prior is known for them, so ours runs without one; transfer peers learn from the other families
of the same tables.
"""

from falcon_ray.errors import InputError
from falcon_ray.studies.figure import Figure
from falcon_ray.studies.search.methods import BLACK_BOX_PEERS, OURS, TRANSFER_PEERS
from falcon_ray.studies.search.options import SearchStudyOptions
from falcon_ray.studies.search.table_file import read_tables
from falcon_ray.studies.search.table_study import run_table_study

_METHODS = (OURS, "random", *TRANSFER_PEERS, "gp_ei", *BLACK_BOX_PEERS)


def figures(options: SearchStudyOptions) -> list[Figure]:
    """Trials of every method on the tables that the options name."""
    if not options.tables:
        raise InputError("name a table: scripts/benchmark search tables --tables PATH")
    tasks = read_tables(options.tables)
    return run_table_study("tables", tasks, options, default_methods=_METHODS).figures()
