"""What a jaxpr makes: for tests that something is never there."""

from collections.abc import Iterator
from typing import Any

import jax


def every_array(jaxpr: Any) -> Iterator[Any]:
    """Every array that a jaxpr makes, those of loops, branches and calls inside it too."""
    for equation in every_equation(jaxpr):
        yield from (variable.aval for variable in equation.outvars)


def every_equation(jaxpr: Any) -> Iterator[Any]:
    """Every equation of a jaxpr, those of loops, branches and calls inside it too."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns")
        ):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from every_equation(inner)
