"""The registry of rules. `import jaxgd` and the command line read it, so it imports JAX for type checkers only."""

from typing import TYPE_CHECKING

from jaxgd.rules.entry import Entry, Hyperparam

if TYPE_CHECKING:
    from jaxgd.rules.evaluating import backtracking as backtracking
    from jaxgd.rules.evaluating import gradient_flow as gradient_flow
    from jaxgd.rules.evaluating import newton as newton
    from jaxgd.rules.first_order import fixed_length as fixed_length
    from jaxgd.rules.first_order import gradient_descent as gradient_descent
    from jaxgd.rules.first_order import heavy_ball as heavy_ball
    from jaxgd.rules.first_order import nesterov as nesterov
    from jaxgd.rules.lbfgs import wolfe as wolfe

_ETA = Hyperparam("eta", 1e-3, "Learning rate η")
_MU = Hyperparam("mu", 0.9, "Momentum μ", fraction=True)

RULES = {
    rule.name: rule
    for rule in (
        Entry("gradient_descent", "jaxgd.rules.first_order", (_ETA,)),
        Entry("fixed_length", "jaxgd.rules.first_order", (Hyperparam("epsilon", 1e-2, "Length of each step"),)),
        Entry("heavy_ball", "jaxgd.rules.first_order", (_ETA, _MU)),
        Entry("nesterov", "jaxgd.rules.first_order", (_ETA, _MU)),
        Entry("backtracking", "jaxgd.rules.evaluating"),
        Entry("wolfe", "jaxgd.rules.lbfgs"),
        Entry("newton", "jaxgd.rules.evaluating"),
        Entry("gradient_flow", "jaxgd.rules.evaluating", (Hyperparam("dt", 1e-3, "Time step"),)),
    )
}
