import sys
from pathlib import Path

import cloudpickle
import pytest

from falcon_ray.errors import InputError
from falcon_ray.runtime.references import (
    Reference,
    load_optional,
    load_reference,
    parse_reference,
)


def write(directory: Path, name: str, text: str) -> Path:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def load(text: str, directory: Path) -> object:
    return load_reference(parse_reference(text, directory=directory))


def complaint(text: str, directory: Path) -> str:
    """The one line that the user reads."""
    with pytest.raises(InputError) as caught:
        load(text, directory)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_reference_models_name_stands_for_its_factory(tmp_path: Path) -> None:
    reference = parse_reference("resnet50", directory=tmp_path)
    assert reference == Reference("falcon_ray.profiling.zoo.resnet:resnet50")
    assert reference.name == "resnet50"
    assert callable(load_reference(reference))


def test_a_module_is_found_in_the_directory(tmp_path: Path) -> None:
    write(tmp_path, "shop/__init__.py", "")
    write(tmp_path, "shop/models.py", "def tiny():\n    return 'made'\n")
    reference = parse_reference("shop.models:tiny", directory=tmp_path)
    assert reference == Reference("shop.models:tiny", str(tmp_path))
    assert load_reference(reference)() == "made"


def test_a_file_is_found_relative_to_the_directory_and_named_absolutely(tmp_path: Path) -> None:
    path = write(tmp_path, "models/tiny.py", "def make():\n    return 'made'\n")
    reference = parse_reference("models/tiny.py:make", directory=tmp_path)
    assert reference == Reference(f"{path}:make", str(path.parent))
    assert load_reference(reference)() == "made"


def test_an_absolute_path_needs_no_directory(tmp_path: Path) -> None:
    path = write(tmp_path, "tiny.py", "def make():\n    return 'made'\n")
    assert parse_reference(f"{path}:make", directory=Path("/nowhere")).spec == f"{path}:make"


def test_a_file_can_import_its_neighbours(tmp_path: Path) -> None:
    write(tmp_path, "models/parts_of_tiny.py", "PART = 'part'\n")
    write(tmp_path, "models/tiny.py", "from parts_of_tiny import PART\n")
    assert load("models/tiny.py:PART", tmp_path) == "part"


def test_a_file_is_run_once_however_often_it_is_loaded(tmp_path: Path) -> None:
    write(tmp_path, "tiny.py", "made = object()\n")
    assert load("tiny.py:made", tmp_path) is load("tiny.py:made", tmp_path)


def test_two_files_of_one_name_are_two_modules(tmp_path: Path) -> None:
    write(tmp_path, "a/tiny.py", "NAME = 'a'\n")
    write(tmp_path, "b/tiny.py", "NAME = 'b'\n")
    assert load("a/tiny.py:NAME", tmp_path) == "a"
    assert load("b/tiny.py:NAME", tmp_path) == "b"


def test_what_a_file_defines_travels_to_other_processes_as_code(tmp_path: Path) -> None:
    write(tmp_path, "tiny.py", "def make():\n    return 'made'\n")
    make = load("tiny.py:make", tmp_path)
    pickled = cloudpickle.dumps(make)
    del sys.modules["falcon_target_tiny"]
    assert cloudpickle.loads(pickled)() == "made"


def test_a_sibling_stands_beside_what_is_named(tmp_path: Path) -> None:
    write(tmp_path, "tiny.py", "def make(): ...\ndef make_inputs(): ...\n")
    reference = parse_reference("tiny.py:make", directory=tmp_path)
    sibling = load_optional(reference.sibling("_inputs"))
    assert sibling.__name__ == "make_inputs"
    assert load_optional(reference.sibling("_outputs")) is None


def test_an_unknown_reference_model_says_the_nearest_and_how_to_give_your_own(
    tmp_path: Path,
) -> None:
    message = complaint("mobilenet", tmp_path)
    assert "did you mean 'mobilenet_v3'?" in message
    assert "package.module:factory or path/to/file.py:factory" in message


@pytest.mark.parametrize("text", ["tiny.py:", "tiny:not-a-name", "tiny.py:make()", "a:b.c"])
def test_what_follows_the_colon_is_a_name(text: str, tmp_path: Path) -> None:
    expected = f"{text!r}: what follows the colon must be a function's name"
    assert complaint(text, tmp_path) == expected


def test_what_precedes_the_colon_is_not_nothing(tmp_path: Path) -> None:
    message = complaint(":make", tmp_path)
    assert message == "':make': name a module or a .py file before the colon"


def test_a_missing_file_is_looked_up_in_a_directory_that_is_said(tmp_path: Path) -> None:
    expected = f"models/tiny.py: no such file; give a path relative to {tmp_path}"
    assert complaint("models/tiny.py:make", tmp_path) == expected


@pytest.mark.parametrize("text", ["no_such_shop:make", "no_such_shop.models:make"])
def test_a_missing_module_says_where_to_run(text: str, tmp_path: Path) -> None:
    message = complaint(text, tmp_path)
    expected = "no module named 'no_such_shop': run from the directory that holds it, or install it"
    assert message == expected


def test_a_missing_submodule_is_not_taken_for_a_missing_dependency(tmp_path: Path) -> None:
    write(tmp_path, "shop/__init__.py", "")
    message = complaint("shop.models.tiny:make", tmp_path)
    assert message.startswith("no module named 'shop.models': run from the directory")


@pytest.mark.parametrize("text", ["needy.py:make", "needy:make"])
def test_a_missing_dependency_is_told_apart_from_a_missing_module(
    text: str, tmp_path: Path
) -> None:
    write(tmp_path, "needy.py", "import no_such_dependency\n")
    message = complaint(text, tmp_path)
    assert message.startswith("no module named 'no_such_dependency': ")
    assert message.endswith("needs it; install it")


def test_a_missing_name_lists_what_there_is(tmp_path: Path) -> None:
    path = write(tmp_path, "tiny.py", "def mobile(): ...\ndef server(): ...\n_hidden = 1\n")
    assert complaint("tiny.py:make", tmp_path) == f"{path} has no 'make'; it has mobile, server"


def test_an_empty_module_says_so(tmp_path: Path) -> None:
    write(tmp_path, "nothing_here.py", "")
    message = complaint("nothing_here:make", tmp_path)
    assert message == "nothing_here has no 'make'; it has nothing public"


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("raise RuntimeError('no\\nweights')", "RuntimeError: no weights"),
        ("def make(:", "SyntaxError: invalid syntax"),
        ("import sys\nsys.exit(3)", "SystemExit: 3"),
    ],
)
@pytest.mark.parametrize("form", ["broken.py:make", "broken:make"])
def test_a_module_that_breaks_at_import_is_one_line(
    form: str, code: str, cause: str, tmp_path: Path
) -> None:
    write(tmp_path, "broken.py", code)
    message = complaint(form, tmp_path)
    assert message.startswith("importing ")
    assert f"failed: {cause}" in message


def test_a_file_that_broke_is_run_again_once_it_is_mended(tmp_path: Path) -> None:
    path = write(tmp_path, "broken.py", "raise RuntimeError('no weights')")
    complaint("broken.py:NAME", tmp_path)
    path.write_text("NAME = 'mended, and of another length'\n", encoding="utf-8")
    assert load("broken.py:NAME", tmp_path) == "mended, and of another length"
