"""The device mesh, and the one table that says how parameters lie on it."""
