"""Personalized reinforcement learning with a budget of policies (Ivanov & Ben-Porat 2024)."""

from rmdp.evaluation import load, load_problem

__all__ = ["load", "load_problem"]
