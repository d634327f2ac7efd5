"""Progress: plain lines in a log, a bar on a terminal."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tpo_jax.cli import progress
from tpo_jax.cli.progress import duration_text, stage_progress


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_plain_lines_come_at_most_every_ten_seconds(clock: Clock) -> None:
    log = io.StringIO()
    with stage_progress("frames", 40, stream=log) as update:
        for done in range(1, 41):
            clock.now += 1
            update(done, f"video {done}")
    assert log.getvalue().splitlines() == [
        "frames: 10/40, 10 s elapsed, about 30 s left, video 10",
        "frames: 20/40, 20 s elapsed, about 20 s left, video 20",
        "frames: 30/40, 30 s elapsed, about 10 s left, video 30",
        "frames: 40/40, 40 s elapsed, about 0 s left, video 40",
        "frames: 40/40, done in 40 s",
    ]


def test_what_an_earlier_run_did_and_the_first_step_do_not_count_as_speed(clock: Clock) -> None:
    log = io.StringIO()
    with stage_progress("train", 100, stream=log) as update:
        clock.now += 30  # compiling, too, comes once
        update(91)
        clock.now += 20
        update(92)
    assert log.getvalue().splitlines() == [
        "train: 91/100, 30 s elapsed",
        "train: 92/100, 50 s elapsed, about 2 min 40 s left",
        "train: 92/100, done in 50 s",
    ]


def test_a_stage_that_fails_says_how_far_it_came(clock: Clock) -> None:
    log = io.StringIO()
    with pytest.raises(KeyboardInterrupt), stage_progress("frames", 4, stream=log) as update:
        clock.now += 3
        update(1)
        raise KeyboardInterrupt
    assert log.getvalue() == "frames: 1/4, stopped after 3 s\n"


def test_the_default_stream_is_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with stage_progress("nothing", 0):
        pass
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "nothing: 0/0, done in 0 s\n"


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    screen = Terminal()
    with stage_progress("frames [all]", 4, stream=screen) as update:
        update(3, "clip[0].mp4")
    shown = screen.getvalue()
    for expected in ("frames [all]", "3/4", "elapsed", "left", "clip[0].mp4"):
        assert expected in shown


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.6, "1 h 00 min"),
        (3900, "1 h 05 min"),
        (7199, "2 h 00 min"),
        (360000, "100 h 00 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


@given(st.floats(min_value=0, max_value=1e8))
def test_no_duration_has_sixty_of_anything(seconds: float) -> None:
    assert "60" not in duration_text(seconds).split()[2:]
