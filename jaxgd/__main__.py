"""`python -m jaxgd` runs the command `jaxgd`."""

import sys

from jaxgd.cli import main

sys.exit(main())
