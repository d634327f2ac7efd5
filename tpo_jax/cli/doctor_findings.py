"""What `tpo doctor` is asked, and what one of its checks found."""

from dataclasses import dataclass
from typing import Final, Literal

Status = Literal["OK", "WARN", "FAIL"]
OK: Final = "OK"
WARN: Final = "WARN"
FAIL: Final = "FAIL"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a check found, and what to do about it (empty if nothing is to be done)."""

    status: Status
    found: str
    mend: str = ""


@dataclass(frozen=True, kw_only=True)
class Request:
    """Where a run would write, and the checkpoint that it would begin from ("": none)."""

    run_dir: str = "runs"
    checkpoint: str = ""
