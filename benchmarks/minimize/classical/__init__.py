"""Classical test problems of unconstrained minimization, and a table of minimizers on them."""

from benchmarks.minimize.classical.few import FEW
from benchmarks.minimize.classical.fits import FITS
from benchmarks.minimize.classical.many import EXTENDED, STANDARD

PROBLEMS = {problem.name: problem for problem in (*FEW, *FITS, *STANDARD, *EXTENDED)}
