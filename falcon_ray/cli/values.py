"""Texts of flags as values."""

from falcon_ray.errors import InputError


def choices(texts: tuple[str, ...]) -> dict[str, list[str | int | float]]:
    """Values by dimension name from flags NAME=V,V.

    Raises:
        InputError: One has another form.
    """
    return {
        name: [scalar(each) for each in text.split(",")]
        for name, text in pairs("search_space", texts)
    }


def pairs(name: str, texts: tuple[str, ...]) -> list[tuple[str, str]]:
    """The texts of a repeatable flag NAME=VALUE as pairs.

    Raises:
        InputError: One has another form.
    """
    found: list[tuple[str, str]] = []
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals and value):
            flag = name.replace("_", "-")
            raise InputError(f"--{flag} {text!r}: write NAME=VALUE, e.g. batch_size=8")
        found.append((key, value))
    return found


def scalar(text: str) -> str | int | float:
    """A whole number, a number, or the text itself."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text.strip()


def shape(text: str) -> list[int]:
    """The sizes in a text such as 3,224,224.

    Raises:
        InputError: It holds something else.
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--input-shape {text!r}: write whole numbers, e.g. 3,224,224") from None
