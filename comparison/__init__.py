"""One population, several ways to personalise: the same agents, the same starts, the same accounting."""
