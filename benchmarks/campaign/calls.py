"""Bad calls of the public functions: each argument takes values of wrong types, shapes, dtypes and ranges.

A call may be accepted, or refused by one of jaxgd's exceptions with a message of at most 600 characters. It may also
raise an exception of the caller's own function.
"""

import functools
import inspect
import itertools
import os
import random
import resource
import tempfile
import traceback
import warnings
from collections.abc import Iterator

from benchmarks.campaign import values as table
from benchmarks.campaign.attack import Attack, Options
from benchmarks.campaign.children import without_network
from benchmarks.campaign.play import Try, isolated
from benchmarks.campaign.values import PARTS, OwnError, Traced, good, square, values

_LONGEST = 600
_MEMORY = 16 * 2**30


def attacks(options: Options) -> Iterator[Attack]:
    """Make `count` bad calls: first one bad value per call, until all were tried, and then two bad values per call."""
    rng = random.Random(options.seed)
    pool = list(values())
    places = [(name, (place,)) for name, found in arguments().items() for place in found]
    single = [(name, place, (value,)) for name, place in places for value in pool]
    rng.shuffle(single)

    def pairs() -> Iterator[tuple[str, tuple[str, ...], tuple[str, ...]]]:
        while True:
            name = rng.choice([name for name, found in arguments().items() if len(found) > 1])
            yield name, tuple(rng.sample(arguments()[name], 2)), (rng.choice(pool), rng.choice(pool))

    tries = []
    for name, where, bad in itertools.islice(itertools.chain(single, pairs()), options.count):
        about = f"{name}({', '.join(f'{place} = {value}' for place, value in zip(where, bad, strict=True))})"
        tries.append(Try(name, about, functools.partial(_call, name, where, bad, about)))
    yield from isolated(tries, options.work / "calls", options)


def arguments() -> dict[str, list[str]]:
    """Return the arguments of every public function. Some arguments also have parts, such as `stop.cost`."""
    import jaxgd

    found: dict[str, list[str]] = {}
    for name in jaxgd.__all__:
        function = inspect.unwrap(getattr(jaxgd, name))
        if inspect.isfunction(function):
            found[name] = [*inspect.signature(function).parameters, *PARTS.get(name, {})]
    return found


def _call(name: str, where: tuple[str, ...], bad: tuple[str, ...], about: str) -> Attack:
    """Make one call, and return the attack with its result."""
    import jax

    import jaxgd
    from jaxgd.typed import block_until_ready, jit

    _prepare()
    drawn = [values()[value]() for value in bad]

    def call(*given: object) -> list[jax.Array]:
        keywords = good()[name]()
        for place, value in zip(where, given, strict=True):
            keywords |= PARTS[name][place](value) if place in PARTS.get(name, {}) else {place: value}
        positional: tuple[object, ...] = ()
        if name == "check_gradients":
            args = keywords.pop("args", ())
            positional = (keywords.pop("f"), *(args if isinstance(args, tuple) else (args,)))
        out = getattr(jaxgd, name)(*positional, **keywords)
        if isinstance(out, jaxgd.Rule):
            out = jaxgd.minimize(square, jax.numpy.ones(2), out, max_steps=3)
        return [x for x in jax.tree.leaves(out) if isinstance(x, jax.Array)]

    group = " and ".join(f"{name}.{place}: {value}" for place, value in zip(where, bad, strict=True))
    try:
        if any(isinstance(value, Traced) for value in drawn):
            traced = [value.value for value in drawn if isinstance(value, Traced)]

            def inside(*xs: object) -> list[jax.Array]:
                rest = iter(xs)
                return call(*(next(rest) if isinstance(value, Traced) else value for value in drawn))

            block_until_ready(jit(inside)(*traced))
        else:
            block_until_ready(call(*drawn))
    except jaxgd.JaxgdError as error:
        if len(str(error)) <= _LONGEST:
            return Attack(name, "refused", False, about)
        return Attack(name, "long message", True, f"{about}: {len(str(error))} characters: {error}")
    except OwnError:
        return Attack(name, "the caller's own exception", False, about)
    except Exception as error:
        own = "a class" in bad and any(_takes_function(name, place) for place in where)
        if own or _in_own_function(error):
            return Attack(name, "the caller's own exception", False, about)
        return Attack(name, "raw exception", True, f"{about}: {type(error).__name__}: {' '.join(str(error).split())}")
    return Attack(name, "accepted", False, about, group)


def _in_own_function(error: BaseException) -> bool:
    """Return True if `square` or a lambda of `values.py` raised the error. The bad calls pass these functions."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return frame.filename == table.__file__ and frame.name in ("square", "<lambda>")


def _takes_function(name: str, place: str) -> bool:
    return callable(good()[name]().get(place)) or place in ("callback", "gradient", "vjp", "jvp")


@functools.cache
def _prepare() -> None:
    """Prepare the process of an attack: no warnings, no network, an empty folder, a memory limit, good arguments."""
    good()  # a first call inside jit would cache tracers
    warnings.simplefilter("ignore")
    without_network()
    os.environ["JAXGD_DATA_DIR"] = "no data"
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, resource.RLIM_INFINITY))
    os.chdir(tempfile.mkdtemp(dir="."))
