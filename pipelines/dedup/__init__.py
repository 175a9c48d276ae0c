"""Exact and near-duplicate removal that names the survivor."""
