"""Curation: the model captions segments, is asked about them, answers twice, and filters decide."""
