"""PerSim: a simulator of each agent, learnt from one logged trajectory of each, to plan on."""

from persim.policy import load, load_problem

__all__ = ["load", "load_problem"]
