"""Training: data, objective, loop and state."""
