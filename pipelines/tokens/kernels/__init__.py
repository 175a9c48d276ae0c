"""Byte-level BPE in kernels: texts to pieces (`split`), pieces to ids (`merge`), both over a batch with a cache (`words`)."""
