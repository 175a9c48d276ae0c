"""Ours and the peers on the same input in one run: `python -m bench`, or one table with `python -m bench.X`."""
