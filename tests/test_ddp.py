"""Two processes against one: the same weights within float tolerance, the same numbers bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

from tests.worlds import assert_equal, lightning, weights, write_feature_world

TWO = ("--trainer.devices", 2, "--trainer.strategy", "ddp")


def test_two_processes_fit_the_same_weights_and_give_bit_equal_metrics(tmp_path: Path) -> None:
    world = write_feature_world(tmp_path / "world")
    still = ("-c", world, "--model.init_args.dropout", 0)  # what dropout drops depends on the process
    for runs, more in (("one", ()), ("two", TWO)):
        done = lightning("fit", *still, *more, "--runs", runs, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert_equal(weights(tmp_path / "two"), weights(tmp_path / "one"), tolerance=1e-6)

    (last,) = (tmp_path / "one").rglob("last.ckpt")
    for more in ((), TWO):  # 16 test videos each a batch: dealt evenly; seven are not
        for limit in ((), ("--data.init_args.limit_videos", 7)):
            done = lightning("test", *still, *more, *limit, "--ckpt_path", last, cwd=tmp_path)
            assert done.returncode == 0, done.stderr
    folders = sorted((tmp_path / "one").rglob("test-*"))
    assert len(folders) == 4
    results = {}
    for folder in folders:
        facts = json.loads((folder / "metrics.json").read_text())
        numbers = (folder / "scores.csv").read_text(), json.dumps(facts["metrics"])
        results.setdefault(facts["videos"], []).append(numbers)
    assert {n_videos: len(numbers) for n_videos, numbers in results.items()} == {16: 2, 7: 2}
    for first, second in results.values():
        assert first == second


def test_a_batch_size_that_two_processes_cannot_share_is_refused(tmp_path: Path) -> None:
    world = write_feature_world(tmp_path / "world")
    done = lightning("fit", "-c", world, "--model.init_args.batch_size", 5, *TWO, cwd=tmp_path)
    assert done.returncode != 0
    assert "batch_size 5 is shared by 2 processes; it must be a multiple of 2, such as 4 or 6" in done.stderr
