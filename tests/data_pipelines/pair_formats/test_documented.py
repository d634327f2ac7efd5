"""The examples of docs/formats.md are what the readers read."""

from pathlib import Path

from data_pipelines.pair_formats.formats import FORMATS, read_rows


def test_the_examples_of_the_documentation_are_read(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "docs" / "formats.md").read_text("utf-8")
    section = text[text.index("\n## Pairs of others") :].split("\n## ")[1]
    found = []
    for number, block in enumerate(section.split("```")[1::2]):
        path = tmp_path / f"{number}.{'jsonl' if block.startswith('json') else 'csv'}"
        body = block.removeprefix("json").strip("\n")
        path.write_text((body.replace("\n", " ") if path.suffix == ".jsonl" else body) + "\n")
        name, (row,) = read_rows(path)
        found.append(name)
        said = (row.video, row.question, row.chosen, row.rejected)
        assert said == ("cat.mp4", "What does it do?", "It sleeps.", "It runs.")
    assert found == [*FORMATS, "csv"]
