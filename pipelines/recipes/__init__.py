"""Recipes: functions that return the stages in the order in which data flows."""
