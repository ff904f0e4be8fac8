"""Logs: read, checked, made by behaviour policies."""
