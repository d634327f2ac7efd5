"""TensorFlow Datasets builders; TensorFlow is not needed, neither to write nor to read."""
