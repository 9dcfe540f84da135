"""Save the state of a descent to a file, and load it to continue the descent in another process."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from jaxgd.checkpoint import keyed_like, unkeyed
from jaxgd.descent import DescentState
from jaxgd.descent.problem import require_state
from jaxgd.descent.update import StaticConfig, state_at
from jaxgd.errors import CheckpointError, DtypeError, describe, is_traced, require_rule, require_variables, shown
from jaxgd.files import as_path
from jaxgd.network_file import checksum, read_tensors, write_tensors
from jaxgd.rules import Rule
from jaxgd.rules.rule import Transformation
from jaxgd.typed import Field, eval_shape, tree_leaves, tree_map

_STATE = "jaxgd.state/1"


def save_state(path: str | Path, state: DescentState) -> None:
    """Write the state of a descent to a file, to continue from it in another process.

    The file is a safetensors file. It holds the arrays of the state and their SHA-256, which detects damage. If the
    writing fails, an existing file stays unchanged.

    Args:
        path: Path of the file.
        state: The `state` of a solution, or of an exception that ended a run.

    Raises:
        DtypeError: If `path` is not a str or a Path, or `state` is not a state with values.
        ShapeError: If `state` is a batch of states.
        RangeError: If no file can have this path.
        WriteError: If the file cannot be written.

    Example:
        >>> import tempfile; from jaxgd import gradient_descent, minimize
        >>> path = Path(tempfile.mkdtemp()) / "state.safetensors"
        >>> save_state(path, minimize(jnp.square, 1.0, gradient_descent(0.25), max_steps=3).state)
        >>> print(load_state(path, 0.0, gradient_descent(0.25)).v)
        0.125
    """
    path = as_path("save_state", path)
    require_state("save_state", state)
    if any(map(is_traced, tree_leaves(state))):
        raise DtypeError("save_state: state must have values, got traced arrays.\nSave outside jit and vmap.")
    write_tensors(path, _STATE, {name: unkeyed(x) for name, x in _named(state).items()})


def load_state(path: str | Path, v0: PyTree[Any], rule: Transformation) -> DescentState:
    """Read the state of a descent from a file that `save_state` wrote. Nothing is unpickled.

    `minimize(cost, None, rule, state=load_state(path, v0, rule), …)` continues a run of the same cost and rule bit for
    bit.

    Args:
        path: Path of the file.
        v0: The start of the run, or any tree like it. Only its structure, shapes and dtypes are used.
        rule: The rule of the run. It may have other hyperparameters.

    Returns:
        The state, on the default device.

    Raises:
        CheckpointError: If the file is missing, damaged or larger than the free memory, or has another format. Also if
            its arrays have other names, shapes or dtypes than a state of `rule` and v0. A state of another rule with
            the same names, shapes and dtypes is not detected.
        DtypeError: If an argument has the wrong type.
        ShapeError: If v0 holds no variable.
        RangeError: If no file can have this path.

    Example:
        >>> import tempfile; from jaxgd import gradient_descent, minimize
        >>> path, rule = Path(tempfile.mkdtemp()) / "state.safetensors", gradient_descent(0.25)
        >>> save_state(path, minimize(jnp.square, 1.0, rule, max_steps=3).state)
        >>> print(minimize(jnp.square, None, rule, state=load_state(path, 0.0, rule), max_steps=2).v)
        0.03125
    """
    path = as_path("load_state", path)
    require_rule("load_state", "rule", rule)
    require_variables("load_state", "v0", v0)
    like = _outline(v0, rule)
    try:
        tensors, metadata, sha, _ = read_tensors(path)
        known = metadata == checksum(_STATE, sha)
    except OSError as error:
        raise CheckpointError(f"load_state: {path} cannot be read: {error.strerror}.") from error
    except ValueError:
        known = False
    if not known:
        raise CheckpointError(
            f"load_state: {path} must be a file that save_state wrote, got a damaged file or another format.\n"
            "Restore the file, or run the descent again."
        )
    expected = {name: describe(eval_shape(unkeyed, x)) for name, x in _named(like).items()}
    stored = {name: describe(x) for name, x in tensors.items()}
    for name in expected | stored:
        if expected.get(name) != stored.get(name):
            raise CheckpointError(
                f"load_state: {path} must hold the state of v0 and {shown(rule)}. Expected {name} to be "
                f"{expected.get(name, 'absent')}, got {stored.get(name, 'no such array')}.\nPass the rule of the "
                "run and variables of the run's structure, shapes and dtypes, with the same setting jax_enable_x64."
            )
    leaves = [tensors[name] for name in expected]
    state: DescentState = jax.tree.unflatten(jax.tree.structure(like), leaves)
    return tree_map(keyed_like, like, state)


def _named(state: DescentState) -> dict[str, Field]:
    """Return the leaves of a state by their paths, such as `.v`."""
    return {jax.tree_util.keystr(path): x for path, x in jax.tree_util.tree_leaves_with_path(state)}


def _outline(v0: object, rule: Transformation) -> DescentState:
    """Return the structure, shapes and dtypes of a state of this rule, without values."""
    ours, others = (rule, None) if isinstance(rule, Rule) else (None, rule)

    def first(v: object) -> DescentState:
        return state_at(StaticConfig(cost=jnp.sum, rule=others, record=None, max_steps=None), ours, v, 0.0, v)

    return eval_shape(first, tree_map(lambda x: jnp.asarray(x, jnp.result_type(x)), v0))
