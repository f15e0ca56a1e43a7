"""Two-factor `einsum` equations as matrix products.

It sorts the labels; it does not know more than two factors, nor traces such as "ii".
"""

import math

from falcon_ray.knowledge.operators.operator import Dims, Family, Shape


def contraction(equation: str, left: Shape, right: Shape) -> tuple[Family, Dims] | None:
    """What an equation such as "bhid,bhjd->bhij" computes, as a product of matrices.

    Args:
        equation: Of two factors; an ellipsis stands for leading dimensions.
        left: Shape of the first factor.
        right: Shape of the second.

    Returns:
        LINEAR where no label stands in both factors and in the result, else BMM; None where the
        equation is none of these.
    """
    factors, arrow, result = equation.replace(" ", "").partition("->")
    labels = factors.split(",")
    if len(labels) != 2:
        return None
    sizes: dict[str, int] = {}
    sets: list[set[str]] = []
    for text, shape in zip(labels, (left, right), strict=True):
        before, dots, after = text.partition("...")
        n_leading = len(shape) - len(before) - len(after)
        if n_leading < 0 or (n_leading > 0 and not dots):
            return None
        # Leading dimensions are named from the right, as broadcasting aligns them.
        names = [*before, *(str(n) for n in range(n_leading, 0, -1)), *after]
        for name, size in zip(names, shape, strict=True):
            sizes[name] = max(sizes.get(name, 1), size)
        sets.append(set(names))
    a, b = sets
    leading = {name for name in a | b if name.isdigit()}
    kept = set(result.replace("...", "")) | leading
    if not arrow:  # then labels that occur once are kept, as in Einstein's convention
        kept = (a ^ b) | leading

    def product(names: set[str]) -> int:
        return math.prod(sizes[name] for name in names)

    both = a & b
    shared, summed = product(both & kept), product((a | b) - kept)
    rows, columns = product((a - both) & kept), product((b - both) & kept)
    if both & kept:
        return Family.BMM, (shared, rows, columns, summed)
    return Family.LINEAR, (rows, columns, summed)
