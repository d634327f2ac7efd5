"""Language models that are asked in writing: who writes questions and judges answers."""
