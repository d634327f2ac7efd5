"""`tpo ask`: a part of a video, and an answer that is printed as it is said."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.synthetic_events import DESCRIBE
from tests.data_pipelines.conftest import make_video  # noqa: F401
from tpo_jax import api
from tpo_jax.api import ask, load
from tpo_jax.cli.ask import unprinted
from tpo_jax.cli.main import main


@given(st.text(), st.data())
def test_what_is_printed_adds_up_to_the_answer(answer: str, data: st.DataObject) -> None:
    """Whatever bytes a token ends with: a decoder puts U+FFFD for a character that is cut."""
    raw = answer.encode("utf-8", "replace")
    cuts = data.draw(st.lists(st.integers(0, len(raw)), max_size=8).map(sorted))
    printed = ""
    for cut in [*cuts, len(raw)]:
        printed += unprinted(raw[:cut].decode("utf-8", "replace"), printed)
    whole = raw.decode().rstrip("\N{REPLACEMENT CHARACTER}").strip()
    assert printed == whole


def test_it_streams_what_it_returns(
    tmp_path: Path,
    make_video: Callable[..., Path],  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    video = make_video(tmp_path / "a.mp4", count=20)
    heard: list[str] = []
    answer = ask(load("demo_base"), video, DESCRIBE, frames=4, listener=heard.append)
    assert len(heard) > 2 and heard[-1].strip() == answer
    assert all(later.startswith(one) for one, later in zip(heard, heard[1:], strict=False))
    assert main(["ask", str(video), DESCRIBE, "--frames=4", "--tokens=32"]) == 0
    assert capsys.readouterr().out == f"{answer}\n"


def test_only_the_part_is_shown(
    tmp_path: Path,
    make_video: Callable[..., Path],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    video = make_video(tmp_path / "a.mp4", count=40)
    index = api.read_index(str(video))
    numbers: list[int] = []
    decode = api.decode_frames

    def note(of: object, wanted: list[int]) -> object:
        numbers.extend(wanted)
        return decode(index, wanted)

    monkeypatch.setattr(api, "decode_frames", note)
    start, end = float(index.times_F[10]), float(index.times_F[15])
    ask(load("demo_base"), video, "What?", frames=3, start=start, end=end)
    assert numbers == [10, 12, 15] or numbers == [10, 13, 15]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--start=99"], "no frame from 99 to"),
        (["--start=-1"], "no frame from -1 to"),
        (["--start=1", "--end=0.5"], "no frame from 1 to 0.5 s"),
        (["--frames=0"], "--frames=0: show 1 or more"),
        (["--top-p=2"], "sampling.top_p is 2.0"),
    ],
)
def test_mistakes(
    more: list[str],
    said: str,
    tmp_path: Path,
    make_video: Callable[..., Path],  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    video = make_video(tmp_path / "a.mp4", count=20)
    assert main(["ask", str(video), "What?", *more]) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error
