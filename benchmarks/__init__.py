"""The judge's side: tasks, scoring, statistics and the runner. Numpy, never jax."""
