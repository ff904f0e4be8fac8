"""PerSim (Agarwal et al. 2021, arXiv 2102.06961): a simulator for each agent, from one logged trajectory."""
