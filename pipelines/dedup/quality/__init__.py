"""Near-duplicate removal measured on its own result."""
