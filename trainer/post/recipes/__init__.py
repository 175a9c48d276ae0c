"""Recipes of post-training: functions that return a frozen Post."""
