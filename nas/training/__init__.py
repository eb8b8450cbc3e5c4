"""One training: recipe, optimiser, loop, checkpoints, what is left of it."""
