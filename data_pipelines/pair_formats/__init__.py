"""Preference pairs as other projects write them: one small file a format, all through `row.py`."""
