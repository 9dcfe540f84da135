"""A case of the corpus: a function, points, and the verdicts that a checker may give at these points."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypedDict, Unpack

import jax

from .draws import Draw

RIGHT, IS_WRONG, CANNOT_TELL = "right", "wrong", "cannot tell"
NOT_WRONG, NOT_RIGHT = (RIGHT, CANNOT_TELL), (IS_WRONG, CANNOT_TELL)


@dataclasses.dataclass(frozen=True)
class Case:
    """A function, points, and the verdicts that a checker may give at these points.

    Attributes:
        name: Name in results and tests, unique in its table.
        f: The function.
        draw: Function that takes a random generator and a dtype, and returns the arguments at a point.
        expected: The allowed verdicts: RIGHT, IS_WRONG, CANNOT_TELL.
        cause: The cause that the report of an undecided check must name; empty if any cause is allowed.
        argnums: Position or positions of the arguments to check; None for the checker's default.
        gradient: A claimed gradient to check; None for autodiff's gradient.
        vjp: A claimed reverse mode, like `jax.vjp`; None for autodiff's.
        jvp: A claimed forward mode, like `jax.jvp`; None for autodiff's.
        options: Further keyword arguments of the checker, such as order, rtol or has_aux.
        settings: JAX's settings for the draw and the check: names of JAX's context managers, and their values.
        kind: The kind of a wrong derivative; empty if the case has no kind.
    """

    name: str
    f: Callable[..., object]
    draw: Draw
    expected: tuple[str, ...] = (RIGHT,)
    cause: str = ""
    argnums: int | tuple[int, ...] | None = None
    gradient: Callable[..., object] | None = None
    vjp: Callable[..., object] | None = None
    jvp: Callable[..., object] | None = None
    options: Mapping[str, object] = dataclasses.field(default_factory=dict)
    settings: Mapping[str, object] = dataclasses.field(default_factory=dict)
    kind: str = ""

    def keywords(self) -> dict[str, Any]:
        """Return the keyword arguments of the checker."""
        claims = {"argnums": self.argnums, "gradient": self.gradient, "vjp": self.vjp, "jvp": self.jvp}
        return {name: value for name, value in claims.items() if value is not None} | dict(self.options)

    @contextlib.contextmanager
    def configured(self) -> Iterator[None]:
        """Run a `with` block under the settings."""
        with contextlib.ExitStack() as stack:
            for name, value in self.settings.items():
                stack.enter_context(getattr(jax, name)(value))
            yield


class More(TypedDict, total=False):
    """The optional attributes of a case, without `expected` and `cause`."""

    argnums: int | tuple[int, ...]
    gradient: Callable[..., object]
    vjp: Callable[..., object]
    jvp: Callable[..., object]
    options: Mapping[str, object]
    settings: Mapping[str, object]
    kind: str


def wrong(name: str, f: Callable[..., object], draw: Draw, **more: Unpack[More]) -> Case:
    """Return a case with a wrong derivative."""
    return Case(name, f, draw, (IS_WRONG,), **more)


def undecided(name: str, f: Callable[..., object], draw: Draw, cause: str = "kink", **more: Unpack[More]) -> Case:
    """Return a case in which a checker must answer "cannot tell" and name this cause, or any cause if empty."""
    return Case(name, f, draw, (CANNOT_TELL,), cause, **more)
