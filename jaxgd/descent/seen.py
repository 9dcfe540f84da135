"""A cost together with the data that it reads from outside, so that changed data trigger a new trace."""

import dis
import functools
import types
from collections.abc import Callable, Iterator
from typing import Any

from jaxgd.errors import is_traced


class Seen:
    """A cost that equals another `Seen` only if both read the same objects from outside.

    JAX compares a cost with the costs that it has compiled. The data are:

    - the cells of the function's closure, and the values of its defaults;
    - the globals that its code names;
    - the same data of each function of the same module among these;
    - the fields of the object of a bound method, or of a callable object, and the parts of a functools.partial.

    Data are compared by identity, and Python numbers and strings by value. Data that the cost writes, such as a
    counter, do not count. Changes inside an object are not seen: an element of a list, a NumPy array written in place,
    or a field of a field. A global that another module reads is not seen either. A cost under jax.jit keeps its own
    trace, so its data are not seen.

    Attributes:
        cost: The cost.
        data: The objects that it reads.
    """

    cost: Callable[..., Any]
    data: tuple[Any, ...]

    def __init__(self, cost: Callable[..., Any]) -> None:
        """Look up the data of the cost."""
        self.cost = cost
        self.data = tuple(_data(cost, set()))
        self._hash = hash(cost)

    def __call__(self, *args: Any) -> Any:
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


_PLAIN = (bool, int, float, complex, str, bytes)


def _same(x: Any, y: Any) -> bool:
    return x is y or (type(x) is type(y) and isinstance(x, _PLAIN) and x == y)


def _data(cost: Any, visited: set[int]) -> Iterator[Any]:
    if id(cost) in visited:
        return
    visited.add(id(cost))
    if isinstance(cost, types.MethodType):
        yield from _fields(cost.__self__, cost.__func__)
        yield from _data(cost.__func__, visited)
    elif isinstance(cost, functools.partial):
        yield from map(_kept, (cost.func, *cost.args, *cost.keywords.values()))
        yield from _data(cost.func, visited)
    elif isinstance(cost, types.FunctionType):
        read, _ = _names(cost.__code__)
        values = [*map(_content, cost.__closure__ or ()), *(cost.__defaults__ or ())]
        values += (cost.__kwdefaults__ or {}).values()
        values += [cost.__globals__[name] for name in read if name in cost.__globals__]
        for x in values:
            yield _kept(x)
            if isinstance(x, types.FunctionType) and x.__module__ == cost.__module__:
                yield from _data(x, visited)
    elif hasattr(cost, "__wrapped__"):
        yield from _data(cost.__wrapped__, visited)
    else:
        call = type(cost).__call__
        yield from _fields(cost, call)
        if isinstance(call, types.FunctionType):
            yield from _data(call, visited)


def _fields(x: Any, code_of: Any) -> Iterator[Any]:
    """Yield the fields of an object, without those that the function writes: they are results, such as a counter."""
    if isinstance(x, types.ModuleType | type):
        return
    _, written = _names(code_of.__code__) if isinstance(code_of, types.FunctionType) else ((), frozenset())
    fields = getattr(x, "__dict__", {})
    slots = [name for kind in type(x).__mro__ for name in getattr(kind, "__slots__", ())]
    yield from (_kept(y) for name, y in fields.items() if name not in written)
    yield from (_kept(getattr(x, name, None)) for name in slots if name not in ("__dict__", "__weakref__", *written))


def _kept(x: Any) -> Any:
    """Return x, or a new object if x is a tracer. It belongs to one trace, so no later cost may equal this one."""
    return object() if is_traced(x) else x


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # The variable has no value yet.
        return None


@functools.lru_cache(maxsize=4096)
def _names(code: types.CodeType) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return the names that the code looks up but does not write, and the names that it writes.

    The code of inner functions counts too.
    """
    inner = [_names(constant) for constant in code.co_consts if isinstance(constant, types.CodeType)]
    written = {i.argval for i in dis.get_instructions(code) if i.opname in ("STORE_ATTR", "STORE_GLOBAL")}
    written = written.union(*(names for _, names in inner))
    read = dict.fromkeys((*code.co_names, *(name for names, _ in inner for name in names)))
    return tuple(name for name in read if name not in written), frozenset(written)
