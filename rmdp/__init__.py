"""Personalized reinforcement learning with a budget of policies (Ivanov & Ben-Porat 2024)."""

from rmdp.evaluation import load

__all__ = ["load"]
