"""Training: the pure step, the loop around it, and its checkpoints."""
