"""Imported before anything else here: torch and BLAS count their threads once, when they are loaded.

Workers run beside each other, and threads that wait for a processor by spinning make a busy machine far slower.
"""

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"
