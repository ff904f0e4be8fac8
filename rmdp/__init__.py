"""Personalized reinforcement learning with a budget of policies (Ivanov & Ben-Porat 2024)."""
