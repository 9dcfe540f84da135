"""The names of jaxgd.typed change nothing at run time."""

from typing import NamedTuple

import jax
import pytest

from jaxgd import CostSlice, DescentState, Eigenpairs, Sharpness, Trajectory, typed


class State(NamedTuple, typed.Generic[typed.V]):
    v: typed.V


@pytest.mark.parametrize("kind", [State, CostSlice, DescentState, Eigenpairs, Sharpness, Trajectory])
def test_a_generic_named_tuple_is_a_plain_tuple(kind):
    assert kind.__mro__ == (kind, tuple, object)
    values = range(len(kind._fields))
    assert kind[int](*values) == kind(*values) == tuple(values)


def test_typed_functions_are_the_functions_of_jax():
    assert (typed.jit, typed.grad, typed.tree_map, typed.map_rows) == (jax.jit, jax.grad, jax.tree.map, jax.lax.map)
