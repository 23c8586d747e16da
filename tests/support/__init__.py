"""What the tests share: exact denoisers, and ways to drive solvers and trajectories."""
