"""What is wrong in two texts about guidance, and what each error does."""
