"""Inference and demo: what bone-fracture type an X-ray shows, and which regions say so."""

import os

__version__ = "0.1.0"

# torch's threads spin while they wait for each other, and beside any other busy process an answer then takes ten times
# as long (two cores: 1.0 s instead of 0.13 s). OpenMP reads this when torch is loaded; whoever knows better has set it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
