"""Predictions and plans held against the truth or a held-out log."""
