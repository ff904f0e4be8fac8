"""Sweeps, studies and the tables of the papers."""
