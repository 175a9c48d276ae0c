"""Compiled functions over text: characters and their classes, tokens, lines, n-grams, phrases; `document.py` joins them in one pass."""
