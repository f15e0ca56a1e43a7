"""From a reference such as `package.module:factory` to the object that it names.

A reference is text, so that it can cross processes and stand in a file. This module imports
what the user names, and turns whatever goes wrong into one line that says what to do next.
"""

import importlib
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle

from falcon_ray.errors import InputError
from falcon_ray.profiling.zoo.registry import REFERENCE_MODELS, reference_model


@dataclass(frozen=True, slots=True)
class Reference:
    """Where an object lives, in a form that every process of a cluster can follow.

    Attributes:
        spec: `package.module:name` or `/absolute/path/file.py:name`.
        search_path: A directory to import from, or empty where none is needed.
    """

    spec: str
    search_path: str = ""

    @property
    def name(self) -> str:
        """The object's own name."""
        return self.spec.rpartition(":")[2]

    def sibling(self, suffix: str) -> "Reference":
        """The object beside this one whose name is this one's plus `suffix`."""
        return Reference(self.spec + suffix, self.search_path)


def parse_reference(text: str, *, directory: Path) -> Reference:
    """Read what a user typed: a reference model's name, `module:name` or `file.py:name`.

    Args:
        text: What the user typed.
        directory: Where relative files and modules are looked up.

    Raises:
        InputError: It is neither of the three, or the file does not exist.
    """
    if text in REFERENCE_MODELS:
        return Reference(REFERENCE_MODELS[text].factory)
    module, colon, name = text.rpartition(":")
    if not colon:
        try:
            reference_model(text)
        except ValueError as error:
            raise InputError(
                f"{error}; or give your own as package.module:factory or path/to/file.py:factory"
            ) from None
    if not module:
        raise InputError(f"{text!r}: name a module or a .py file before the colon")
    if not name.isidentifier():
        raise InputError(f"{text!r}: what follows the colon must be a function's name")
    if module.endswith(".py"):
        path = (directory / module).resolve()
        if not path.is_file():
            raise InputError(f"{module}: no such file; give a path relative to {directory}")
        return Reference(f"{path}:{name}", str(path.parent))
    return Reference(text, str(directory))


def load_reference(reference: Reference) -> Any:  # noqa: ANN401 - whatever the user's module holds
    """Import the object that a reference names.

    Raises:
        InputError: The module is missing, fails to import, or lacks the name.
    """
    module_name, _, name = reference.spec.rpartition(":")
    if reference.search_path and reference.search_path not in sys.path:
        sys.path.insert(0, reference.search_path)
    module = _import(module_name)
    try:
        return getattr(module, name)
    except AttributeError:
        public = [each for each in vars(module) if not each.startswith("_")]
        raise InputError(
            f"{module_name} has no {name!r}; it has {', '.join(public[:12]) or 'nothing public'}"
        ) from None


def load_optional(reference: Reference) -> Any:  # noqa: ANN401 - whatever the user's module holds
    """Like `load_reference`, but None where the module does not have the name."""
    module_name, _, name = reference.spec.rpartition(":")
    if reference.search_path and reference.search_path not in sys.path:
        sys.path.insert(0, reference.search_path)
    return getattr(_import(module_name), name, None)


def _import(module_name: str) -> ModuleType:
    try:
        if module_name.endswith(".py"):
            return _import_file(Path(module_name))
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        advice = (
            "run from the directory that holds it, or install it"
            if missing == module_name or module_name.startswith(f"{missing}.")
            else f"{module_name} needs it; install it"
        )
        raise InputError(f"no module named {missing!r}: {advice}") from error
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # a script may end itself
        raise InputError(f"importing {module_name} failed: {_one_line(error)}") from error


def _import_file(path: Path) -> ModuleType:
    name = f"falcon_target_{path.stem}"
    loaded = sys.modules.get(name)
    if loaded is not None and loaded.__file__ == str(path):
        return loaded
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} cannot be imported as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    # Other processes cannot import this name, so what it defines travels as code.
    cloudpickle.register_pickle_by_value(module)
    return module


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
