"""The host side of TPO: videos in, arrays out. Nothing in here imports jax."""
