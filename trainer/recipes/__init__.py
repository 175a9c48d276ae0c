"""Training recipes: functions that return a frozen TrainConfig."""
