"""One file a task: each makes a list of items to ask a model."""
