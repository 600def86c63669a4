"""The arrows of the design: who may import whom."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("vigil", "lightning_modules", "datamodules", "callbacks")
TOP = ("cli", "lightning_cli", "check_cli", "store_cli", "benchmark")
LIGHT = (  # they start at once
    *("types", "features", "curves", "statistics", "event_map", "runs", "uca_keywords", "ground_truth", "reading_file"),
    *("judging", "stored", "protocol", "provenance", "controls", "results", "submission", "tables", "cells", "records"),
    *("staleness", "runner", "runner_view", "launchers", "claims", "measured", "comparison", "wording"),
    *("calibration", "captions", "caption_table", "columns"),
    *(file.stem for file in sorted((ROOT / "vigil").glob("annotation*.py"))),
    *(file.stem for file in sorted((ROOT / "vigil").glob("leaderboard*.py"))),
)
ALONE = {"av": {"vigil/video.py", "vigil/video_stream.py"}, "timm": {"vigil/deit.py"}}
FILES = sorted(file for layer in LAYERS for file in (ROOT / layer).glob("*.py"))


def imports(file: Path, only_at_run_time: bool = True) -> set[str]:
    """Top-level names that a file imports, those for type checkers left out."""
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if only_at_run_time and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name} imports relatively"
            found.add((node.module or "").split(".")[0])
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_a_file_imports_its_own_folder_and_vigil_alone(file: Path) -> None:
    allowed = {file.parent.name, "vigil"}
    assert imports(file) & {*LAYERS, *TOP} <= allowed


@pytest.mark.parametrize("file", sorted((ROOT / "vigil").glob("*.py")), ids=lambda file: file.name)
def test_vigil_does_not_know_lightning(file: Path) -> None:
    assert not imports(file) & {"lightning", "pytorch_lightning"}


@pytest.mark.parametrize("name", LIGHT)
def test_a_light_file_imports_no_torch(name: str) -> None:
    assert not imports(ROOT / "vigil" / f"{name}.py") & {"torch", "torchmetrics", "transformers"}


@pytest.mark.parametrize(("package", "only"), ALONE.items())
def test_named_files_alone_import_the_package(package: str, only: set[str]) -> None:
    users = {f"{file.parent.name}/{file.name}" for file in FILES if package in imports(file)}
    assert users == only


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_only_lightnings_own_name_is_used(file: Path) -> None:
    assert "pytorch_lightning" not in imports(file)
