"""Rules that choose a step from a gradient. Each is an optax transformation, and any optax transformation is a rule."""

from jaxgd.rules.evaluating import backtracking, gradient_flow, newton
from jaxgd.rules.first_order import fixed_length, gradient_descent, heavy_ball, nesterov, update
from jaxgd.rules.lbfgs import wolfe
from jaxgd.rules.rule import Rule

__all__ = [
    "Rule",
    "backtracking",
    "fixed_length",
    "gradient_descent",
    "gradient_flow",
    "heavy_ball",
    "nesterov",
    "newton",
    "update",
    "wolfe",
]
