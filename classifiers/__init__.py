"""Models that score text; nothing else of this project is imported here."""
