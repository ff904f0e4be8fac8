"""Ranks and the one training loop; the only folder that imports mpi4py."""
