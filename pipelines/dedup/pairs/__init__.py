"""Near-duplicate pairs: candidates by buckets, their components, and what exact comparison makes of them."""
