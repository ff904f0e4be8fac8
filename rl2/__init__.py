"""RL^2 (Duan et al. 2016, arXiv 1611.02779): a recurrent policy that learns to learn."""
