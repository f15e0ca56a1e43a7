"""Where the public tables lie that studies read and constants are fitted from.

They are no part of the project: `scripts/fetch_data` brings them from their origins.
"""

import os
from pathlib import Path

from falcon_ray.errors import InputError

DATA_DIR_VARIABLE = "FALCON_RAY_DATA_DIR"


def public_table(name: str) -> Path:
    """The path of a public table, e.g. "llm_serving.parquet".

    It is looked for in the directory that FALCON_RAY_DATA_DIR names, by default `shared/data`
    beside the checkout.

    Raises:
        InputError: It is not there.
    """
    beside_checkout = Path(__file__).resolve().parents[3] / "shared" / "data"
    directory = Path(os.environ.get(DATA_DIR_VARIABLE, beside_checkout))
    path = directory / name
    if not path.is_file():
        raise InputError(
            f"{path} is missing; run scripts/fetch_data and let {DATA_DIR_VARIABLE} name the "
            "directory that it prints"
        )
    return path
