"""A cost together with the outside data that it reads, so that changed data trigger a new trace."""

import dis
import functools
import inspect
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from jaxgd.errors import is_traced

R_co = TypeVar("R_co", covariant=True)
R = TypeVar("R")


class Seen(Generic[R_co]):
    """A cost with its outside data. Two `Seen` are equal only if their costs are equal and their data are the same.

    JAX uses a compiled program again only for an equal `Seen`. `train` also compares the functions in `record=` in this
    way. The outside data are:

    - the values in the cost's closure, and its default values;
    - the globals that its code names;
    - for a functools.partial: its function, its arguments, and the data of each function among them;
    - for a function that wraps another function, such as `jax.vmap(f)`: the data of the wrapped function;
    - for a bound method or a callable object: its fields, the members of its class that the code names, and the data of
      the methods among these members;
    - for each function from the cost's module in a closure, a default, a global or a field: the data of that function.

    Python numbers, strings and bytes are compared by type and value, and all other data by identity. Attributes and
    globals that the cost writes, such as a counter, are ignored. A change inside an object is not detected: in an
    element of a list, in a NumPy array, or in a field of a field. A changed global of another module is not detected
    either. A cost under jax.jit keeps its own trace, so a change of its data has no effect.

    Attributes:
        cost: The cost.
        data: The objects that it reads.
    """

    cost: Callable[..., R_co]
    data: tuple[object, ...]

    def __init__(self, cost: Callable[..., R_co]) -> None:
        """Look up the data of the cost."""
        self.cost = cost
        self.data = tuple(_data(cost, set()))
        self._hash = hash(cost)

    def __call__(self, *args: object) -> R_co:
        """Return cost(*args)."""
        return self.cost(*args)

    def __hash__(self) -> int:
        """Return the hash of the cost."""
        return self._hash

    def __eq__(self, other: object) -> bool:
        """Return True for the same cost with the same data."""
        return (
            isinstance(other, Seen)
            and self.cost == other.cost
            and len(self.data) == len(other.data)
            and all(map(_same, self.data, other.data))
        )


def seen(cost: Callable[..., R]) -> Seen[R]:
    """Return the cost with the data that it reads now."""
    return Seen(hashable(cost))


def hashable(cost: Callable[..., R]) -> Callable[..., R]:
    """Return a cost or an activation, in a functools.partial if it has no hash.

    An object with mutable fields may have no hash.
    """
    try:
        hash(cost)
    except TypeError:
        return functools.partial(cost)
    return cost


_PLAIN = (bool, int, float, complex, str, bytes)


def _same(x: object, y: object) -> bool:
    return x is y or (type(x) is type(y) and isinstance(x, _PLAIN) and x == y)


def _data(cost: object, visited: set[int]) -> Iterator[object]:
    if id(cost) in visited:
        return
    visited.add(id(cost))
    if isinstance(cost, types.MethodType):
        yield from _fields(cost.__self__, cost.__func__, visited)
        yield from _data(cost.__func__, visited)
    elif isinstance(cost, functools.partial):
        for x in (cost.func, *cost.args, *cost.keywords.values()):
            yield _kept(x)
            yield from _of_module(x, getattr(x, "__module__", None), visited)
        yield from _data(cost.func, visited)
    elif isinstance(cost, types.FunctionType):
        read, _ = _names(cost.__code__)
        values: list[object] = [*map(_content, cost.__closure__ or ()), *(cost.__defaults__ or ())]
        values += (cost.__kwdefaults__ or {}).values()
        values += [cost.__globals__[name] for name in read if name in cost.__globals__]
        for x in values:
            yield _kept(x)
            yield from _of_module(x, cost.__module__, visited)
        if hasattr(cost, "__wrapped__"):
            yield from _data(cost.__wrapped__, visited)
    elif hasattr(cost, "__wrapped__"):
        yield from _data(cost.__wrapped__, visited)
    else:
        call = type(cost).__call__
        yield call
        yield from _fields(cost, call, visited)
        if isinstance(call, types.FunctionType):
            yield from _data(call, visited)


def _of_module(x: object, module: str | None, visited: set[int]) -> Iterator[object]:
    """Yield the data of x if x is a function from `module`, or wraps a function from it."""
    function = inspect.unwrap(x) if callable(x) else x
    if isinstance(function, types.FunctionType) and function.__module__ == module:
        yield from _data(function, visited)


def _fields(x: object, code_of: object, visited: set[int]) -> Iterator[object]:
    """Yield the fields of x, the members of its class that the function `code_of` names, and the data of its methods.

    Leave out fields that the function writes, because they are results, such as a counter.
    """
    if isinstance(x, types.ModuleType):
        return
    kind = x if isinstance(x, type) else type(x)
    read, written = _names(code_of.__code__) if isinstance(code_of, types.FunctionType) else ((), frozenset())
    fields: dict[str, object] = {} if isinstance(x, type) else dict(getattr(x, "__dict__", {}))
    for owner in () if isinstance(x, type) else kind.__mro__:
        slots: str | Iterable[str] = vars(owner).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            private = name.startswith("__") and not name.endswith("__")
            name = f"_{owner.__name__.lstrip('_')}{name}" if private else name
            if name not in ("__dict__", "__weakref__"):
                fields[name] = getattr(x, name, None)
    for name, value in fields.items():
        if name not in written:
            yield _kept(value)
            yield from _of_module(value, kind.__module__, visited)
    for name in read:
        member = next((vars(owner)[name] for owner in kind.__mro__ if name in vars(owner)), None)
        member = getattr(member, "fget", getattr(member, "__func__", member))
        yield _kept(member)
        if isinstance(member, types.FunctionType) and id(member) not in visited:
            yield from _data(member, visited)
            yield from _fields(x, member, visited)


def _kept(x: object) -> object:
    """Return x, or a new object if x is a tracer: two `Seen` that read a tracer are never equal."""
    return object() if is_traced(x) else x


def _content(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # The variable has no value yet.
        return None


@functools.lru_cache(maxsize=4096)
def _names(code: types.CodeType) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return the names of the globals and attributes that the code only reads, and of those that it writes.

    The names in inner functions are included.
    """
    inner = [_names(constant) for constant in code.co_consts if isinstance(constant, types.CodeType)]
    written = {i.argval for i in dis.get_instructions(code) if i.opname in ("STORE_ATTR", "STORE_GLOBAL")}
    written = written.union(*(names for _, names in inner))
    read = dict.fromkeys((*code.co_names, *(name for names, _ in inner for name in names)))
    return tuple(name for name in read if name not in written), frozenset(written)
