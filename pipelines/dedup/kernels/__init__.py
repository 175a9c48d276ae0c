"""The loops behind shingles, signatures and similarities, on Arrow UTF-8 buffers."""
