"""Readers: WARC, JSONL, Parquet and plain text become records."""
