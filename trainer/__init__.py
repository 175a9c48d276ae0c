"""From shards to weights: an Accelerate-based FSDP trainer (never loads pyspark)."""

import os

# Set before torch loads its OpenMP runtime: threads that spin at barriers slow each other down by a factor of ten and more as
# soon as the cores are shared with anything else.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
