"""Others' ways to do what this project does, measured beside it in one run."""
