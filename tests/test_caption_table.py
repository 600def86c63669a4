"""What several systems say of the same events, side by side."""

from __future__ import annotations

from pathlib import Path

import pytest

from vigil.caption_table import caption_table, markdown
from vigil.captions import Caption, write_captions


def written(folder: Path, name: str, rows: list[Caption]) -> Path:
    write_captions(folder / f"{name}.csv", rows)
    return folder / f"{name}.csv"


def events(said: str, near: float | None, count: int = 7) -> list[Caption]:
    return [Caption(f"v{i}", i, i + 9, f"{said} {i}.", f"Truth {i}.", near) for i in range(count)]


def test_every_cell_is_a_row_and_every_sample_a_column(tmp_path: Path) -> None:
    files = {"base": written(tmp_path, "a", events("It says", 0.25)), "LoRA": written(tmp_path, "b", events("B", None))}
    assert caption_table(files, 3).splitlines() == [
        "|  | v0, frames 0 to 9 | v3, frames 3 to 12 | v6, frames 6 to 15 |",
        "| --- | --- | --- | --- |",
        "| Ground truth | Truth 0. | Truth 3. | Truth 6. |",
        "| base | It says 0. (0.250) | It says 3. (0.250) | It says 6. (0.250) |",
        "| LoRA | B 0. | B 3. | B 6. |",
    ]


def test_only_events_that_every_cell_describes_are_shown(tmp_path: Path) -> None:
    all_of_them, some = events("A", 0.5), events("B", 0.5)[2:4]
    other = Caption("v5", 5, 14, "B 5.", "Another sentence of that stretch.", 0.5)
    files = {"a": written(tmp_path, "a", all_of_them), "b": written(tmp_path, "b", [*some, other])}
    head = caption_table(files).splitlines()[0]
    assert head == "|  | v2, frames 2 to 11 | v3, frames 3 to 12 |"
    files["c"] = written(tmp_path, "c", [other])
    with pytest.raises(ValueError, match=r"no event is described by all of them: 7 in .*a\.csv, 3 in .*b\.csv, 1 in"):
        caption_table(files)
    with pytest.raises(ValueError, match="no captions to show"):
        caption_table({})
    with pytest.raises(FileNotFoundError, match=r"gone\.csv"):
        caption_table({"a": tmp_path / "gone.csv"})


def test_a_text_stays_in_its_cell_and_is_no_markdown() -> None:
    table = markdown(
        ["a_b"], {"said": ["one | two\nthree <b> *x* ![](http://picture) `code`"]}, ["![](captions/a.jpg)"]
    )
    assert table.splitlines() == [
        r"|  | a\_b |",
        "| --- | --- |",
        "| Frames | ![](captions/a.jpg) |",
        r"| said | one \| two three &lt;b&gt; \*x\* !\[\](http://picture) \`code\` |",
    ]
