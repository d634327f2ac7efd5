"""What a model can be relied on for. May import anything."""
