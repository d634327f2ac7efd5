"""Checkpoints in the authors' PyTorch format: names, reading, writing."""
