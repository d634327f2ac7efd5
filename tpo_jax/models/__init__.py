"""The model: vision tower, projector, visual tokens, decoder. Knows no training and no files."""
