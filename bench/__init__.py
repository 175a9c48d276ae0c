"""Ours and the peers on the same input in one run: `python -m bench`, or one table with `python -m bench.X`."""

import os

# One process, one thread: set here, before NumPy and the tokenizers read these.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
