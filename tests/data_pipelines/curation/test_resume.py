"""Curation killed and run again ends as if it had been left alone."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_pipelines.artefacts import read_manifest
from data_pipelines.curation import pipeline
from data_pipelines.curation.pipeline import curate_share
from data_pipelines.errors import InputError
from data_pipelines.synthetic_events import DESCRIBE
from tests.data_pipelines.curation.knowing_model import (
    CONFIG,
    Killed,
    World,
    curator_of,
    knowing,
    results,
    run,
    silent,
)


def assert_finished_as(undisturbed: Path, out: Path) -> None:
    assert results(out) == results(undisturbed)
    assert not out.with_name("pairs.partial").exists()


@pytest.mark.parametrize("killed_at", range(1, 7))
def test_killed_in_the_model_and_run_again(
    world: World, undisturbed: Path, tmp_path: Path, killed_at: int
) -> None:
    out = tmp_path / "pairs"
    first = knowing(world, killed_at=killed_at)
    with pytest.raises(Killed):
        run(world, out, first)
    assert not out.exists()
    again = run(world, out)
    calls = [video for video in world.store.videos for _ in ("captions", "answers")]
    assert [video for video, _ in again.calls] == calls[killed_at - 1 :]
    assert_finished_as(undisturbed, out)


@pytest.mark.parametrize("killed_after", [1, 2, 3])
def test_killed_between_videos_and_run_again(
    world: World, undisturbed: Path, tmp_path: Path, killed_after: int
) -> None:
    def progress(done: int, total: int, detail: str) -> None:
        assert total == 3
        if done == killed_after:
            raise Killed

    out = tmp_path / "pairs"
    first = knowing(world)
    with pytest.raises(Killed):
        run(world, out, first, progress=progress)
    told: list[tuple[int, int, str]] = []
    again = run(world, out, progress=lambda *one: told.append(one))
    asked = [video for model in (first, again) for video, _ in model.calls]
    assert asked == [video for video in world.store.videos for _ in ("captions", "answers")]
    assert_finished_as(undisturbed, out)
    assert [(done, total) for done, total, _ in told] == [(1, 3), (2, 3), (3, 3)]
    manifest = read_manifest(out, "pairs")
    (name, count), *_ = sorted(manifest["dropped"].items(), key=lambda item: -item[1])
    assert told[-1][2].startswith(f"{manifest['pairs']} pairs of {manifest['candidates']} (")
    assert f"({count} {name}" in told[-1][2]


def test_killed_while_a_line_was_written(world: World, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "pairs"
    with pytest.raises(Killed):
        run(world, out, knowing(world, killed_at=5))
    ledger = tmp_path / "curation" / "answers.jsonl"
    ledger.write_bytes(ledger.read_bytes()[:-10])
    again = run(world, out)
    last = world.store.videos[2]
    assert [video for video, _ in again.calls] == [world.store.videos[1], last, last]
    assert_finished_as(undisturbed, out)


@pytest.mark.parametrize("step", ["write_pairs", "write_text", "write_manifest"])
def test_killed_while_the_files_are_written(
    world: World, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def kill(*args: Any, **keywords: Any) -> None:
        raise Killed

    out = tmp_path / "pairs"
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, step, kill)
        with pytest.raises(Killed):
            run(world, out)
    assert run(world, out).calls == []
    assert_finished_as(undisturbed, out)


@pytest.mark.parametrize("hosts", [2, 3])
def test_hosts_share_the_videos_and_the_first_asks_nothing_more(
    world: World, undisturbed: Path, tmp_path: Path, hosts: int
) -> None:
    out = tmp_path / "pairs"
    for host in range(hosts):
        model = knowing(world)
        curate_share(curator_of(world, model), out, host, hosts, silent)
        asked = [video for video, _ in model.calls]
        assert asked == [video for video in world.store.videos[host::hosts] for _ in range(2)]
    assert run(world, out).calls == []
    assert_finished_as(undisturbed, out)
    # A host that begins again, among fewer, does nothing again either.
    again = knowing(world)
    curate_share(curator_of(world, again), out, 0, 1, silent)
    assert again.calls == []


def test_other_settings_use_what_still_holds(
    world: World, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "pairs"
    run(world, out, config=replace(CONFIG, pairs=6))
    first = results(out)
    out.rename(tmp_path / "first")
    # The number of pairs, or who judges, changes no caption, question or answer.
    assert run(world, out).calls == []
    assert results(out) == results(undisturbed) != first
    out.rename(tmp_path / "second")
    # With another seed only captions are the same.
    again = run(world, out, config=replace(CONFIG, seed=1))
    assert DESCRIBE not in {request.question for _, of in again.calls for request in of}
    assert len(again.calls) == 3
    out.rename(tmp_path / "third")
    run(world, out, config=replace(CONFIG, segment_frames=6))
    assert results(out) != results(undisturbed)


def test_a_finished_folder_is_not_written_again(world: World, undisturbed: Path) -> None:
    model = knowing(world)
    with pytest.raises(InputError, match="exists already"):
        run(world, undisturbed, model)
    assert model.calls == []
