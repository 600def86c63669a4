"""Every config is read, and every combination of the three layers is a whole."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import yaml

from cli import main
from tests.worlds import ROOT

LAYERS = {layer: sorted((ROOT / "configs" / layer).glob("*.yaml")) for layer in ("systems", "data", "machines")}
EVERY = [file for files in LAYERS.values() for file in files]
MACHINE_KEYS = {"accelerator", "devices", "strategy", "precision", "num_nodes", "log_every_n_steps", "plugins"}


def keys(file: Path) -> set[str]:
    """The dotted keys of a config down to its second level."""
    config = yaml.safe_load(file.read_text())
    return {f"{first}.{second}" for first, values in config.items() for second in values}


@pytest.mark.parametrize("file", EVERY, ids=lambda file: file.stem)
def test_a_config_says_first_what_it_is(file: Path) -> None:
    assert file.read_text().startswith("# ")


def test_no_two_layers_set_one_key() -> None:
    for one, other in itertools.combinations(LAYERS, 2):
        for a, b in itertools.product(LAYERS[one], LAYERS[other]):
            assert not keys(a) & keys(b), (a.name, b.name)


@pytest.mark.parametrize("file", LAYERS["machines"], ids=lambda file: file.stem)
def test_a_machine_sets_no_part_of_the_recipe(file: Path) -> None:
    assert keys(file) <= {f"trainer.{key}" for key in MACHINE_KEYS}


@pytest.mark.parametrize("command", ["fit", "test"])
@pytest.mark.parametrize(
    "files", itertools.product(*LAYERS.values()), ids=lambda files: "-".join(f.stem for f in files)
)
def test_every_combination_is_a_whole(
    files: tuple[Path, ...], command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as stop:
        main([command, *itertools.chain.from_iterable(("-c", str(file)) for file in files), "--print_config"])
    assert not stop.value.code
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["model"]["class_path"].endswith(yaml.safe_load(files[0].read_text())["model"]["class_path"])


def test_the_demo_config_is_complete_in_itself(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as stop:
        main(["fit", "-c", "configs/demo.yaml", "--print_config"])
    assert not stop.value.code
    assert yaml.safe_load(capsys.readouterr().out)["data"]["init_args"]["demo"] is True
