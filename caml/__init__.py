"""CAML (Zhang 2019, arXiv 2010.04816): start from the best of k clustered policies, then adapt."""
