"""From raw crawls to training shards: Spark stages, their ledger and the shard format (never loads torch)."""
