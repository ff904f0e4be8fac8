"""What a policy that never acted would be worth to each agent, told from logs alone."""
