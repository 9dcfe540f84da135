"""The public names and their modules. Type checkers read this file, and `__init__.py` reads it at run time."""

from jaxgd import mesh as mesh
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
from jaxgd.rules import *  # noqa: F403  the registry of rules lists their names
from jaxgd.rules import Rule as Rule
from jaxgd.rules import update as update
from jaxgd.slices import CostSlice as CostSlice
from jaxgd.slices import cost_slice as cost_slice
from jaxgd.state_file import load_state as load_state
from jaxgd.state_file import save_state as save_state
from jaxgd.sweeps import Sweep as Sweep
from jaxgd.sweeps import merge_sweep as merge_sweep
from jaxgd.sweeps import sweep as sweep
from jaxgd.training import train as train

__all__: list[str]
__version__: str
