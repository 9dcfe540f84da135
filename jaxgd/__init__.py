"""jaxgd: gradient descent that can be trusted, at the speed of the machine.

This module lists the public names. Each name is imported on first use, so `jaxgd --help` does not import JAX.
"""

import importlib

from jaxgd.rules.registry import RULES

# Type checkers know this name. The import of typing would take longer than the rest of this module, and the command
# handles Ctrl-C only when this module is imported.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from jaxgd.activations import sigmoid as sigmoid
    from jaxgd.activations import sigmoid_prime as sigmoid_prime
    from jaxgd.assessment import Assessment as Assessment
    from jaxgd.assessment import assess as assess
    from jaxgd.backpropagation import backprop as backprop
    from jaxgd.cost import accuracy as accuracy
    from jaxgd.cost import cross_entropy as cross_entropy
    from jaxgd.cost import network_cost as network_cost
    from jaxgd.cost import quadratic_cost as quadratic_cost
    from jaxgd.curvature import Eigenpairs as Eigenpairs
    from jaxgd.curvature import Sharpness as Sharpness
    from jaxgd.curvature import eigenpairs as eigenpairs
    from jaxgd.curvature import hessian_vector_product as hessian_vector_product
    from jaxgd.curvature import sharpness as sharpness
    from jaxgd.data import Dataset as Dataset
    from jaxgd.data import Part as Part
    from jaxgd.data import load_dataset as load_dataset
    from jaxgd.data import load_idx as load_idx
    from jaxgd.descent import Descent as Descent
    from jaxgd.descent import DescentState as DescentState
    from jaxgd.descent import Record as Record
    from jaxgd.descent import Solution as Solution
    from jaxgd.descent import Stop as Stop
    from jaxgd.descent import Trajectory as Trajectory
    from jaxgd.descent import minimize as minimize
    from jaxgd.errors import CheckpointError as CheckpointError
    from jaxgd.errors import DataError as DataError
    from jaxgd.errors import DtypeError as DtypeError
    from jaxgd.errors import JaxgdError as JaxgdError
    from jaxgd.errors import MissingDependencyError as MissingDependencyError
    from jaxgd.errors import RangeError as RangeError
    from jaxgd.errors import ShapeError as ShapeError
    from jaxgd.errors import WriteError as WriteError
    from jaxgd.gradcheck import GradientError as GradientError
    from jaxgd.gradcheck import GradientReport as GradientReport
    from jaxgd.gradcheck import Verdict as Verdict
    from jaxgd.gradcheck import check_gradients as check_gradients
    from jaxgd.history import History as History
    from jaxgd.history import TrainResult as TrainResult
    from jaxgd.history import TrainState as TrainState
    from jaxgd.network import Layer as Layer
    from jaxgd.network import Network as Network
    from jaxgd.network import feedforward as feedforward
    from jaxgd.network import init_network as init_network
    from jaxgd.network_file import load_network as load_network
    from jaxgd.network_file import save_network as save_network
    from jaxgd.outcome import Outcome as Outcome
    from jaxgd.outcome import Reason as Reason
    from jaxgd.records import LayerGradientNorms as LayerGradientNorms
    from jaxgd.records import TrainingSharpness as TrainingSharpness
    from jaxgd.report.plotting import plot as plot
    from jaxgd.rules import *  # noqa: F403  a new rule then needs no line here
    from jaxgd.slices import CostSlice as CostSlice
    from jaxgd.slices import cost_slice as cost_slice
    from jaxgd.state_file import load_state as load_state
    from jaxgd.state_file import save_state as save_state
    from jaxgd.sweeps import Sweep as Sweep
    from jaxgd.sweeps import merge_sweep as merge_sweep
    from jaxgd.sweeps import sweep as sweep
    from jaxgd.training import train as train

__version__ = "0.2.0"

_HOME = {
    "assessment": ("Assessment", "assess"),
    "activations": ("sigmoid", "sigmoid_prime"),
    "backpropagation": ("backprop",),
    "network_file": ("load_network", "save_network"),
    "cost": ("accuracy", "cross_entropy", "network_cost", "quadratic_cost"),
    "curvature": ("Eigenpairs", "Sharpness", "eigenpairs", "hessian_vector_product", "sharpness"),
    "data": ("Dataset", "Part", "load_dataset", "load_idx"),
    "descent": ("Descent", "DescentState", "Record", "Solution", "Stop", "Trajectory", "minimize"),
    "errors": (
        "CheckpointError",
        "DataError",
        "DtypeError",
        "JaxgdError",
        "MissingDependencyError",
        "RangeError",
        "ShapeError",
        "WriteError",
    ),
    "gradcheck": ("GradientError", "GradientReport", "Verdict", "check_gradients"),
    "network": ("Layer", "Network", "feedforward", "init_network"),
    "outcome": ("Outcome", "Reason"),
    "records": ("LayerGradientNorms", "TrainingSharpness"),
    "report.plotting": ("plot",),
    "rules": ("Rule", "update", *RULES),
    "slices": ("CostSlice", "cost_slice"),
    "state_file": ("load_state", "save_state"),
    "history": ("History", "TrainResult", "TrainState"),
    "sweeps": ("Sweep", "merge_sweep", "sweep"),
    "training": ("train",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> object:
    if name == "mesh":
        return importlib.import_module("jaxgd.mesh")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'jaxgd' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"jaxgd.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
