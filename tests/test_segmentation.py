"""The readers of the segmentation sets: what they find in sound copies, and what they say of damaged ones."""

from __future__ import annotations

import json
import pickle
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.stats import binomtest, chisquare

from datamodules.demo_segmentation import encode_rle, write_segmentation
from datamodules.segmentation import SETS, cityscapes, coco_stuff, mevis, read_set, refcoco, youtube_vos
from datamodules.segmentation_set import decode_rle, polygon_mask
from vigil.exposure import expose, spelling
from vigil.safe_pickle import load_plain

LABELLED = ("ade20k", "coco_stuff", "cityscapes", "mapillary")
CLIPS = ("youtube_vos", "ref_youtube_vos", "mevis", "ref_davis")
RLE = {"size": [3, 4], "counts": [2, 3, 7]}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("segmentation") / "world"
    write_segmentation(root, size="tiny")
    return root


@pytest.fixture
def copy(pristine: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of one set, to be damaged."""

    def make(name: str) -> Path:
        folder = SETS[name][0]
        shutil.copytree(pristine / folder, tmp_path / folder)
        return tmp_path / folder

    return make


# run lengths and polygons -------------------------------------------------------------------------------------------


def slow_counts(text: str) -> list[int]:
    """COCO's compressed run lengths, character by character."""
    counts: list[int] = []
    value = place = 0
    for character in text:
        code = ord(character) - 48
        value |= (code & 31) << (5 * place)
        place += 1
        if not code & 32:
            if code & 16:
                value -= 1 << (5 * place)
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = place = 0
    return counts


def slow_mask(counts: list[int], height: int, width: int) -> np.ndarray:
    mask, at, value = np.zeros((height, width), bool), 0, False
    for count in counts:
        for _ in range(count):
            mask[at % height, at // height] = value
            at += 1
        value = not value
    return mask


@pytest.mark.parametrize("shape", [(1, 1), (3, 4), (17, 29), (480, 854)])
@pytest.mark.parametrize("kind", ["blobs", "noise", "empty", "full"])
def test_run_lengths_come_back_as_a_plain_loop_reads_them(shape: tuple[int, int], kind: str) -> None:
    generator = np.random.default_rng(3)
    mask = {"empty": np.zeros(shape, bool), "full": np.ones(shape, bool), "noise": generator.random(shape) < 0.4}.get(
        kind
    )
    if mask is None:
        y, x = np.mgrid[: shape[0], : shape[1]]
        mask = (y - shape[0] / 2) ** 2 + (x - shape[1] / 3) ** 2 < (min(shape) / 3) ** 2
    encoded = encode_rle(mask)
    counts = slow_counts(encoded["counts"])
    assert np.array_equal(decode_rle(encoded), mask)
    assert np.array_equal(decode_rle({**encoded, "counts": encoded["counts"].encode()}), mask)
    assert np.array_equal(decode_rle({"size": encoded["size"], "counts": counts}), mask)
    if mask.size < 1000:
        assert np.array_equal(slow_mask(counts, *shape), mask)


def test_known_run_lengths() -> None:
    assert decode_rle(RLE).astype(int).tolist() == [[0, 1, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0]]
    # as in the documentation of COCO's format: 0..4 zeros and so on, with differences from the fourth on
    assert slow_counts("0304O2") == [0, 3, 0, 7, -1, 9]


@pytest.mark.parametrize(
    "rle",
    [
        {}, {"size": [3, 4]}, {"size": [3], "counts": [12]}, {"size": [3, 4], "counts": [2, 3, 6]}, [1, 2], None,
        {"size": [3, 4], "counts": [2, -3, 13]}, {"size": [0, 4], "counts": []}, {"size": [3, 4], "counts": ""},
        {"size": [3, 4], "counts": "§"}, {"size": [3, 4], "counts": "P"}, {"size": [3, 4], "counts": "!"},
        {"size": [3, 4], "counts": "oooooooooooooooo0"}, {"size": ["a", 4], "counts": [12]},
    ],
)  # fmt: skip
def test_damaged_run_lengths_are_refused(rle: Any) -> None:
    with pytest.raises(ValueError, match=r"here: (not a run-length mask|runs of)"):
        decode_rle(rle, "here")


def test_a_polygon_holds_the_pixels_whose_centre_it_holds() -> None:
    assert polygon_mask([[2, 1, 6, 1, 6, 4, 2, 4]], 8, 9).sum() == 12
    generator = np.random.default_rng(5)
    for _ in range(20):
        polygon = generator.uniform(-4, 24, 2 * int(generator.integers(3, 9)))
        mask = polygon_mask([polygon.tolist()], 18, 20)
        corner = polygon.reshape(-1, 2)
        for y in range(18):
            for x in range(20):
                inside = False
                for (x0, y0), (x1, y1) in zip(corner, np.roll(corner, -1, axis=0), strict=True):
                    if (y0 > y + 0.5) != (y1 > y + 0.5) and x + 0.5 > x0 + (y + 0.5 - y0) * (x1 - x0) / (y1 - y0):
                        inside = not inside
                assert mask[y, x] == inside


def test_polygons_of_one_object_unite_and_nonsense_is_refused() -> None:
    square, hole = [0, 0, 4, 0, 4, 4, 0, 4], [2, 2, 6, 2, 6, 6, 2, 6]
    assert polygon_mask([square, hole], 8, 8).sum() == 16 + 16 - 4
    assert not polygon_mask([[1, 1], [50, 50, 60, 50, 60, 60]], 8, 8).any()
    for wrong in ([[1, 2, 3]], [["a", "b"]], [[]], [[float("nan"), 1]]):
        with pytest.raises(ValueError, match="here: "):
            polygon_mask(wrong, 8, 8, "here")


# what every set keeps to --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETS)
def test_every_set_keeps_to_the_same_ways(pristine: Path, name: str) -> None:
    images = read_set(name, pristine)
    assert len({sample.name for sample in images.samples}) == len(images) > 0
    vocabulary = {spelling(phrase) for phrase in images.vocabulary()}
    for i, sample in enumerate(images.samples):
        assert sample.is_clip == (name in CLIPS)
        frames = [len(sample.frames) - 1, 0, 0] if sample.is_clip else [0]
        pixels, masks, phrases = images.pixels(i, frames), images.masks(i, frames), images.phrases(i)
        assert pixels.dtype == np.uint8
        assert pixels.shape == (len(frames), 3, *images.size(i))
        assert set(masks) <= set(phrases)
        assert len({spelling(phrase) for phrase in phrases}) == len(phrases)
        assert {spelling(phrase) for phrase in phrases} <= vocabulary
        for phrase, mask in masks.items():
            assert mask.dtype == bool
            assert mask.shape == (len(frames), *images.size(i))
            assert mask.any(), phrase
            if sample.is_clip:
                assert np.array_equal(mask, images.masks(i)[phrase][frames])
        if not sample.is_clip:
            assert set(masks) == set(phrases)


@pytest.mark.parametrize("name", SETS)
def test_set_up_opens_no_image(pristine: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("an image was opened")

    monkeypatch.setattr(Image, "open", refuse)
    assert len(read_set(name, pristine)) > 0


def test_phrases_of_others_are_drawn_from_every_other_sample_alike(tmp_path: Path) -> None:
    said = [(k, k, [f"thing {k}", f"object {k}"]) for k in range(6)] + [(6, 6, ["!"])]  # the last one says nothing
    images = refcoco(refer_set(tmp_path, said, [[[0, 0, 4, 0, 4, 8]]] * 7))
    generator = np.random.default_rng(0)
    everything = images.others(2, 100, generator)
    assert sorted(phrase.split()[1] for phrase in everything) == ["0", "1", "3", "4", "5"]
    drawn = Counter(phrase for _ in range(3000) for phrase in images.others(2, 1, generator))
    assert len(drawn) == 10
    assert chisquare(list(drawn.values())).pvalue > 0.01
    assert binomtest(drawn.total(), 3000, 5 / 6).pvalue > 0.01
    for _ in range(100):
        assert len(set(images.others(0, 3, generator))) >= 2  # three different samples, one of them may be silent


def test_a_sample_can_be_exposed(pristine: Path) -> None:
    generator = np.random.default_rng(1)
    for name in ("ade20k", "refcocog", "mevis"):
        images = read_set(name, pristine)
        for i in range(len(images)):
            own = list(images.masks(i))[:1]
            phrases, anomalous = expose(own, images.others(i, 30, generator), 0.5, 30, generator, images.phrases(i))
            assert anomalous == (own[0] in phrases)


@pytest.mark.parametrize("name", SETS)
def test_frames_that_are_not_there_are_refused(pristine: Path, name: str) -> None:
    images = read_set(name, pristine)
    for frames in ([], [-1], [len(images.samples[0].frames)]):
        with pytest.raises(ValueError, match="counted from 0"):
            images.masks(0, frames)


def test_an_unknown_set_or_split_is_refused(pristine: Path) -> None:
    with pytest.raises(ValueError, match="'coco' is unknown; expected one of ade20k"):
        read_set("coco", pristine)
    for name in SETS:
        with pytest.raises(ValueError, match=r"split|'test'"):
            read_set(name, pristine, "test")


# what is particular to each -----------------------------------------------------------------------------------------


def write_label(path: Path, label: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(label.astype(np.uint8)).save(path)


@pytest.mark.parametrize(
    ("name", "numbers", "phrases"),
    [
        ("ade20k", (0, 1, 13, 128), {"person", "bicycle"}),  # 1 is the wall
        ("coco_stuff", (255, 180, 0, 170), {"person", "brick wall"}),  # 180 is window-other
        ("cityscapes", (0, 24, 33, 20), {"bicycle", "traffic sign"}),  # 24 is a person, not among LAVIDA's eight
        ("mapillary", (9, 10, 2, 0), {"person", "bird"}),  # 9 and 10 are not evaluated
    ],
)
def test_a_label_image_says_which_classes_are_there_and_where(
    copy: Callable[[str], Path], name: str, numbers: tuple[int, ...], phrases: set[str]
) -> None:
    root = copy(name)
    images = read_set(name, root.parent)
    path = images.label_folder / images.label_files[0]
    write_label(path, np.array(numbers)[np.arange(120 * 160).reshape(120, 160) // 40 % len(numbers)])
    assert set(images.phrases(0)) == phrases == set(images.masks(0))
    assert sum(mask.sum() for mask in images.masks(0).values()) == 120 * 160 / 2
    write_label(path, np.full((120, 160), numbers[0]))  # nothing but void
    again = read_set(name, root.parent)
    assert again.phrases(0) == [] == list(again.masks(0))


def test_two_classes_of_one_name_are_one_phrase(copy: Callable[[str], Path]) -> None:
    root = copy("coco_stuff")
    with (root / "labels.txt").open("a") as file:
        file.write("69: desk\n110: desk-stuff\n180: window-blind\n")
    label = np.zeros((120, 160))
    label[:60], label[60:90], label[90:] = 68, 109, 179
    write_label(root / "stuffthingmaps/train2017/000000000001.png", label)
    images = coco_stuff(root)
    assert {phrase: int(mask.sum()) for phrase, mask in images.masks(0).items()} == {
        "desk": 90 * 160, "window blind": 30 * 160,
    }  # fmt: skip


def test_label_images_are_read_once_for_their_phrases(pristine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = read_set("ade20k", pristine)
    known = [first.phrases(i) for i in range(len(first))]
    monkeypatch.setattr("datamodules.segmentation_images.read_ids", lambda path: pytest.fail(f"{path} was read again"))
    second = read_set("ade20k", pristine)
    assert [second.phrases(i) for i in range(len(second))] == known


def test_cityscapes_takes_other_classes_and_no_unknown_one(pristine: Path) -> None:
    people = cityscapes(pristine / "cityscapes", classes=("person",))
    assert {phrase for i in range(len(people)) for phrase in people.phrases(i)} == {"person"}
    with pytest.raises(ValueError, match="no class dragon; expected some of road"):
        cityscapes(pristine / "cityscapes", classes=("person", "dragon"))


def refer_set(root: Path, said: list[tuple[int, int, list[str]]], outlines: list[Any], split: str = "train") -> Path:
    """RefCOCO of one 12 x 8 image per image number."""
    images = root / "images" / "mscoco" / "images" / "train2014"
    images.mkdir(parents=True)
    (root / "refcoco").mkdir()
    numbers = sorted({image for image, _, _ in said})
    for number in numbers:
        Image.new("RGB", (12, 8)).save(images / f"{number}.jpg")
    refs = [
        {"image_id": image, "ann_id": k, "split": split, "sentences": [{"sent": sentence} for sentence in sentences]}
        for image, k, sentences in said
    ]
    (root / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps(refs, protocol=2))
    instances = {
        "images": [{"id": number, "file_name": f"{number}.jpg"} for number in numbers],
        "annotations": [{"id": k, "segmentation": outline} for k, outline in enumerate(outlines)],
    }
    (root / "refcoco" / "instances.json").write_text(json.dumps(instances))
    return root


def test_a_sentence_said_of_two_objects_means_both_and_an_empty_one_nothing(tmp_path: Path) -> None:
    said = [(7, 0, ["a man", "the left one"]), (7, 1, ["Man", "  ", "?!"]), (8, 2, ["..."])]
    whole = [encode_rle(np.arange(96).reshape(8, 12) % 12 > 9)]
    images = refcoco(refer_set(tmp_path, said, [[[0, 0, 4, 0, 4, 8, 0, 8]], whole, whole[0]]))
    assert images.phrases(0) == ["a man", "the left one"]
    masks = images.masks(0)
    assert (masks["a man"].sum(), masks["the left one"].sum()) == (8 * 4 + 8 * 2, 8 * 4)
    assert images.phrases(1) == [] == list(images.masks(1))


def test_objects_of_mevis_unite_to_one_bool_mask_and_unseen_ones_are_not_shown(copy: Callable[[str], Path]) -> None:
    root = copy("mevis")
    left, right = np.zeros((2, 120, 160), bool)
    left[:, :100], right[:, 60:] = True, True
    meta = json.loads((root / "train" / "meta_expressions.json").read_text())
    video = next(iter(meta["videos"]))
    n_frames = len(meta["videos"][video]["frames"])
    meta["videos"] = {video: meta["videos"][video] | {"expressions": {
        "0": {"exp": "both of them", "obj_id": [1, 2], "anno_id": [4, 11]},
        "1": {"exp": "the second", "obj_id": [2], "anno_id": ["11"]},
    }}}  # fmt: skip
    runs = {"11": [None] * (n_frames - 1) + [encode_rle(right)], "4": [encode_rle(left)] * n_frames, "5": []}
    (root / "train" / "meta_expressions.json").write_text(json.dumps(meta))
    (root / "train" / "mask_dict.json").write_text(json.dumps(runs, indent=1))
    images = mevis(root)
    assert list(images.masks(0, [0])) == ["both of them"]
    both = images.masks(0, [0, n_frames - 1])["both of them"]
    assert [frame.sum() for frame in both] == [120 * 100, 120 * 160]
    assert set(images.masks(0)) == set(images.phrases(0))


def test_an_object_without_expression_is_simply_not_asked_for(pristine: Path) -> None:
    clips = read_set("ref_youtube_vos", pristine)
    said = [{number for numbers in said.values() for number in numbers} for said in clips.said]
    files = sorted((pristine / "ref_youtube_vos" / "train" / "Annotations").iterdir())
    there = [set(np.unique([np.asarray(Image.open(file)) for file in folder.iterdir()])) - {0} for folder in files]
    assert any(found - asked for found, asked in zip(there, said, strict=True))


def test_a_category_that_says_nothing_is_no_phrase(copy: Callable[[str], Path]) -> None:
    root = copy("youtube_vos")
    meta = json.loads((root / "train" / "meta.json").read_text())
    objects = next(iter(meta["videos"].values()))["objects"]
    objects["1"]["category"], objects["2"]["category"] = "others", "giant_panda"
    (root / "train" / "meta.json").write_text(json.dumps(meta))
    assert "others" not in youtube_vos(root).phrases(0)
    assert "giant panda" in youtube_vos(root).phrases(0)


# what is wrong ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETS)
def test_every_missing_folder_or_list_is_named(copy: Callable[[str], Path], name: str) -> None:
    with pytest.raises(FileNotFoundError, match="not there; expected"):
        read_set(name, "/nonexistent")
    root = copy(name)
    prefix = {"refcoco_plus": "refcoco+"}.get(name, name) if SETS[name][0] == "refer" else ""
    parts = [part for part in (root / prefix).iterdir() if not part.name.startswith("images") or not prefix]
    parts = [part for part in parts if part.name != "meta_expressions"]
    assert parts
    for part in parts:
        part.rename(root.parent / "away")
        with pytest.raises(FileNotFoundError, match="not there; expected"):
            read_set(name, root.parent)
        (root.parent / "away").rename(part)
    read_set(name, root.parent)


@pytest.mark.parametrize("name", SETS)
def test_a_damaged_image_is_named(copy: Callable[[str], Path], name: str) -> None:
    root = copy(name)
    images = read_set(name, root.parent)
    path = images.samples[0].path(0)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=f"{path.name}.*not a sound image"):
        images.pixels(0)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=path.name):
        images.pixels(0)


@pytest.mark.parametrize("name", SETS)
def test_a_mask_of_another_size_than_its_image_is_refused(copy: Callable[[str], Path], name: str) -> None:
    root = copy(name)
    images = read_set(name, root.parent)
    path = images.samples[0].path(0)
    Image.new("RGB", (80, 60)).save(path)
    with pytest.raises(ValueError, match=r"160 x 120 pixels, its image .* has 80 x 60"):
        images.masks(0)


@pytest.mark.parametrize("name", LABELLED)
def test_images_without_a_label_image_are_listed_up_to_ten(copy: Callable[[str], Path], name: str) -> None:
    root = copy(name)
    images = read_set(name, root.parent)
    for path in {images.label_folder / file for file in images.label_files}:
        path.unlink()
    for k in range(8):
        shutil.copy(images.samples[0].path(0), str(images.samples[0].path(0)).replace("0000", f"9{k}99", 1))
    with pytest.raises(ValueError, match=r"14 bad entries: .*no .*; and 4 more. Expected a label image"):
        read_set(name, root.parent)


@pytest.mark.parametrize(
    ("name", "number"), [("ade20k", 151), ("coco_stuff", 200), ("cityscapes", 34), ("mapillary", 11)]
)
def test_an_unknown_class_is_refused(copy: Callable[[str], Path], name: str, number: int) -> None:
    root = copy(name)
    images = read_set(name, root.parent)
    path = images.label_folder / images.label_files[0]
    write_label(path, np.full((120, 160), number))
    for ask in (images.phrases, images.masks):
        with pytest.raises(ValueError, match=f"{path.name}: holds the classes {number}, which"):
            ask(0)
    Image.new("RGB", (160, 120)).save(path)
    with pytest.raises(ValueError, match=f"{path.name}: an image of mode RGB; annotation has one number"):
        images.masks(0)


@pytest.mark.parametrize("name", LABELLED)
def test_an_empty_set_is_refused(copy: Callable[[str], Path], name: str) -> None:
    root = copy(name)
    for sample in read_set(name, root.parent).samples:
        sample.path(0).unlink()
    with pytest.raises(ValueError, match="no samples"):
        read_set(name, root.parent)


JSONS = {
    "mapillary": "config_v2.0.json", "refcoco": "refcoco/instances.json", "refclef": "refclef/instances.json",
    "youtube_vos": "train/meta.json", "ref_youtube_vos": "meta_expressions/train/meta_expressions.json",
    "mevis": "train/meta_expressions.json", "ref_davis": "meta_expressions/train/meta_expressions.json",
}  # fmt: skip


@pytest.mark.parametrize("name", JSONS)
@pytest.mark.parametrize(
    "text", ["", "{", "[1]", "{}", '{"videos": 3, "labels": 3}', "[" * 100_000, "\x00", '{"videos": {}}']
)
def test_json_that_is_none_or_says_something_else_is_refused(copy: Callable[[str], Path], name: str, text: str) -> None:
    root = copy(name)
    (root / JSONS[name]).write_text(text)
    with pytest.raises(ValueError, match=r"not valid JSON|expected|Expected|no samples"):
        read_set(name, root.parent)


@pytest.mark.parametrize("name", CLIPS)
@pytest.mark.parametrize("video", ["../elsewhere", "/etc", "a\0b", "no_such_video", "..\\x", ""])
def test_a_video_that_is_not_there_or_leads_elsewhere_is_refused(
    copy: Callable[[str], Path], name: str, video: str
) -> None:
    root = copy(name)
    meta = json.loads((root / JSONS[name]).read_text())
    known = next(iter(meta["videos"].values()))
    meta["videos"] |= {f"{video}{k or ''}" if video == "no_such_video" else video: known for k in range(12)}
    (root / JSONS[name]).write_text(json.dumps(meta))
    expected = "12 bad entries.*no such folder.*and 2 more" if video == "no_such_video" else "leads out of|no file name"
    with pytest.raises(ValueError, match=expected):
        read_set(name, root.parent)


@pytest.mark.parametrize("name", ["ref_youtube_vos", "mevis"])
def test_a_frame_that_leads_elsewhere_is_refused(copy: Callable[[str], Path], name: str) -> None:
    root = copy(name)
    meta = json.loads((root / JSONS[name]).read_text())
    next(iter(meta["videos"].values()))["frames"][0] = "../../../../secret"
    (root / JSONS[name]).write_text(json.dumps(meta))
    with pytest.raises(ValueError, match="leads out of the set's folder"):
        read_set(name, root.parent)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda refs, found: found["images"][0].update(file_name="../../etc/passwd"), "leads out of"),
        (lambda refs, found: found["images"][0].update(file_name="none.jpg"), "none.jpg: no such image"),
        (lambda refs, found: found["images"][0].pop("id"), "images 0: KeyError 'id'"),
        (lambda refs, found: refs[0].update(ann_id=999), "ref 0: KeyError 999"),
        (lambda refs, found: refs[0].update(image_id=999), "ref 0: KeyError 999"),
        (lambda refs, found: refs[0]["sentences"][0].pop("sent"), "ref 0: KeyError 'sent'"),
        (lambda refs, found: refs[0]["sentences"][0].update(sent=3), "AttributeError|TypeError"),
        (lambda refs, found: refs.insert(0, 5), "ref 0: TypeError"),
        (lambda refs, found: [ref.update(split="val") for ref in refs], "no ref of the split 'train'; it has val"),
        (lambda refs, found: refs.clear(), "it has none"),
    ],
)
def test_references_that_do_not_fit_are_refused(copy: Callable[[str], Path], change: Any, message: str) -> None:
    root = copy("refcoco")
    file, instances = root / "refcoco" / "refs(unc).p", root / "refcoco" / "instances.json"
    refs, found = load_plain(file), json.loads(instances.read_text())
    change(refs, found)
    file.write_bytes(pickle.dumps(refs, protocol=2))
    instances.write_text(json.dumps(found))
    with pytest.raises(ValueError, match=message):
        refcoco(root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"), ("{", "cut off"), ("[]", "cut off"), ('{"0": [null, {"size": [1, 1], "counts": "0', "cut off"),
        ('{"777": [null]}', "no masks 0, "),
    ],
)  # fmt: skip
def test_a_mask_file_that_is_cut_off_or_lacks_an_object_is_refused(
    copy: Callable[[str], Path], text: str, message: str
) -> None:
    root = copy("mevis")
    (root / "train" / "mask_dict.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        mevis(root)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ("[nil]", "not valid JSON"), ("[null]", "1 masks for 6 frames"), ('[3, 3, 3, 3, 3, 3]', "not a run-length"),
        ('[{"size": [2, 2], "counts": [4]}, null, null, null, null, null]', "2 x 2 pixels, its image"),
    ],
)  # fmt: skip
def test_damaged_masks_of_an_object_are_refused_when_they_are_asked_for(
    copy: Callable[[str], Path], entries: str, message: str
) -> None:
    root = copy("mevis")
    file = root / "train" / "mask_dict.json"
    masks = json.loads(file.read_text())
    file.write_text("{" + ", ".join(f'"{key}": {entries}' for key in masks) + "}")
    with pytest.raises(ValueError, match=message):
        mevis(root).masks(0)


def test_lines_of_a_class_list_that_are_none_are_named(copy: Callable[[str], Path]) -> None:
    root = copy("coco_stuff")
    (root / "labels.txt").write_text("0: unlabeled\nperson\n2: --\n3: car\n")
    with pytest.raises(
        ValueError, match=r"labels\.txt: 2 bad entries: line 2: .*; line 3: .*Expected lines as `1: person`"
    ):
        coco_stuff(root)
