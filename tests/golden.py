"""The golden cases: tiny models of both families, run once with the authors' own classes."""

from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "golden"
FAMILIES = ("llava_video", "longva")


def golden_folder(family: str) -> Path:
    """Returns the folder of a family's case; skips the test where there is none."""
    folder = FOLDER / family
    if not folder.is_dir():
        pytest.skip(f"no golden case at {folder}")
    return folder
