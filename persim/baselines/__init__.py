"""What PerSim is compared with: other ways to learn from the same logs."""
