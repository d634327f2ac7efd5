"""The data set `tpo_pairs`: a file of pairs as ArrayRecord in TFDS features."""
