"""Compiled functions over text: character classes, tokens, lines, n-grams, phrases; `document.py` is the one pass."""
