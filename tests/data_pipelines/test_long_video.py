"""An hour of video goes through in the memory of a minute."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from data_pipelines.frames import FrameStore


def test_an_hour_takes_no_more_memory_than_a_minute(
    tmp_path: Path, make_video: Callable[..., Path]
) -> None:
    """3,600 frames of 224 x 224 are 542 MB."""
    script = (
        "import resource, sys\n"
        "from data_pipelines.frame_build import build_store\n"
        "from data_pipelines.images import ImagePolicy\n"
        "from data_pipelines.sampling import FramePolicy\n"
        "policy = FramePolicy(fps=1.0, max_frames=3600)\n"
        "build_store(sys.argv[1:2], sys.argv[2], frame_policy=policy,"
        " image_policy=ImagePolicy(size=224))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peaks = []
    for name, count in (("minute", 60), ("hour", 3600)):
        video = make_video(
            tmp_path / f"{name}.mp4", count=count, pts=[3000 * n for n in range(count)]
        )
        command = [sys.executable, "-c", script, str(video), str(tmp_path / name)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout) / 1024)
        store = FrameStore.open(tmp_path / name)
        (identity,) = store.videos
        assert len(store.info(identity).times_F) == count
    assert peaks[1] < peaks[0] + 100, f"{peaks} MB"
