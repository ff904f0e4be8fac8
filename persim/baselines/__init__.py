"""Baselines of PerSim: other methods that learn from the same logs."""
