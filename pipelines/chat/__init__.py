"""Conversations and preferences, whatever their shape, to token ids with roles."""
