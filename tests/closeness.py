"""How near arrays must be that are computed in two ways."""

from typing import Any

import numpy as np

RELATIVE = 1e-5


def assert_close(found: Any, expected: Any, name: str, largest: float | None = None) -> None:
    """Within 1e-5 of the largest expected entry."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape, name
    largest = float(np.max(np.abs(expected))) if largest is None else largest
    error = float(np.max(np.abs(found - expected)))
    assert error <= RELATIVE * largest, f"{name}: {error / (largest or 1):.1e} of its largest"
