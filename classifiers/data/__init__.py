"""Training sets of the shipped models, by one command from freely licensed sources: `python -m classifiers.data OUT`."""
