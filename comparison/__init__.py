"""Several methods of personalising on one population: the same agents, starts and accounting."""
