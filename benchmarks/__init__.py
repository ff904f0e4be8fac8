"""Speed and quality, each a command that prints its result."""
