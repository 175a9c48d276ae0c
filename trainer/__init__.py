"""From shards to weights: an Accelerate-based FSDP trainer (never loads pyspark)."""
