"""Every event of both UCA releases, as JSON and as text, what is irregular in them, and the keyword lists' counts."""

from __future__ import annotations

import gzip
import json
import re
import time
from collections import Counter
from pathlib import Path

import pytest

from vigil.annotations import UCF_CRIME_CATEGORIES, UcaEvent, caption_frames, uca, uca_events, ucf_crime
from vigil.uca_keywords import KEYWORDS, matches

EVENTS = {"Train": 15_677, "Val": 3_534, "Test": 4_331}
VIDEOS = {"Train": 1_165, "Val": 379, "Test": 310}
OLD_EVENTS = {"train": 13_864, "val": 3_124, "test": 3_834}
BEYOND = {"train": (142, 31), "val": (35, 12), "test": (18, 1)}  # ends, and also starts, after the video


@pytest.fixture(scope="module")
def data(shared_data: Path) -> Path:
    return shared_data / "uca"


@pytest.fixture(scope="module")
def current(data: Path) -> dict[str, list[UcaEvent]]:
    return {split: uca_events(data / "json" / f"UCFCrime_{split}.json") for split in EVENTS}


def write(folder: Path, text: str) -> Path:
    path = folder / "events.txt"
    path.write_text(text)
    return path


def multiset(events: list[UcaEvent]) -> Counter[tuple[str, int, int, str]]:
    return Counter((e.video, round(10 * e.start_s), round(10 * e.end_s), e.sentence) for e in events)


@pytest.mark.parametrize("split", EVENTS)
def test_json_and_text_of_the_current_release_give_the_same_events(
    data: Path, current: dict[str, list[UcaEvent]], split: str
) -> None:
    entries = json.loads((data / "json" / f"UCFCrime_{split}.json").read_text())
    assert [(e.video, e.start_s, e.end_s, e.duration_s) for e in current[split]] == [
        (name, *times, entry["duration"]) for name, entry in entries.items() for times in entry["timestamps"]
    ]
    text = uca_events(data / "txt" / f"UCFCrime_{split}.txt.gz")
    assert len(text) == len(current[split]) == EVENTS[split]
    assert multiset(text) == multiset(current[split])
    assert all(event.duration_s is None and event.irregular is None for event in text)
    assert [event.place for event in text] == [f"line {number}" for number in range(1, len(text) + 1)]
    assert len({event.video for event in text}) == VIDEOS[split]


@pytest.mark.parametrize(("split", "differing"), [("Train", 9_438), ("Val", 2_288), ("Test", 2_181)])
def test_the_gender_neutral_text_has_the_same_times(data: Path, split: str, differing: int) -> None:
    text = uca_events(data / "txt" / f"UCFCrime_{split}.txt.gz")
    mask = uca_events(data / "txt_mask" / f"mask_UCFCrime_{split}.txt.gz")
    assert [(e.video, e.start_s, e.end_s, e.place) for e in mask] == [
        (e.video, e.start_s, e.end_s, e.place) for e in text
    ]
    assert sum(one.sentence != other.sentence for one, other in zip(text, mask, strict=True)) == differing


def test_seven_events_of_the_current_release_stand_there_twice(current: dict[str, list[UcaEvent]]) -> None:
    twice = [key for split in EVENTS for key, count in multiset(current[split]).items() if count > 1]
    expected = "Arrest012 Shooting008 Shooting011 Shooting011 Normal_Videos136 Normal_Videos308 Normal_Videos396"
    assert sorted(name for name, *_ in twice) == sorted(f"{name}_x264" for name in expected.split())


@pytest.mark.parametrize("split", OLD_EVENTS)
def test_ends_beyond_the_video_in_the_2023_json_are_named_kept_or_left_out(data: Path, split: str) -> None:
    path = data / "v1_2023" / f"UCFCrime_{split}.json.gz"
    listed = json.loads((data / "derived" / "uca_irregular_entries.json").read_text())["v1_2023"][split]
    kept = uca_events(path, "keep")
    odd = [event for event in kept if event.irregular]
    assert [[e.video, int(e.place.split()[-1]) - 1, e.start_s, e.end_s, e.duration_s] for e in odd] == listed[
        "events_end_gt_duration"
    ]
    both = [event for event in odd if "starts and ends beyond" in str(event.irregular)]
    assert (len(kept), len(odd), len(both)) == (OLD_EVENTS[split], *BEYOND[split])
    assert uca_events(path, "leave_out") == [event for event in kept if not event.irregular]
    with pytest.raises(ValueError, match=rf"{path.name}: {len(odd)} irregular of {len(kept)} events") as error:
        uca_events(path)
    assert str(error.value).count(" beyond the video's ") == 10
    assert f"; and {len(odd) - 10} more" in str(error.value)
    assert f"{odd[9].place}: " in str(error.value)


@pytest.mark.parametrize("split", OLD_EVENTS)
def test_broken_lines_of_the_2023_text_are_named_kept_or_left_out(data: Path, split: str) -> None:
    path = data / "v1_2023" / f"UCFCrime_{split}.txt.gz"
    listed = json.loads((data / "derived" / "uca_irregular_entries.json").read_text())["v1_2023"][split]
    lines = [number for number, _ in listed["txt_irregular_lines"]]
    kept = uca_events(path, "keep")
    assert [event.place for event in kept if event.irregular] == [f"line {number}" for number in lines]
    assert len(kept) == OLD_EVENTS[split] == len(uca_events(path, "leave_out")) + len(lines)
    if lines:
        with pytest.raises(ValueError, match=rf"{len(lines)} irregular of {len(kept)} events") as error:
            uca_events(path)
        assert re.findall(r"line (\d+):", str(error.value)) == [str(number) for number in lines[:10]]
    else:
        assert uca_events(path) == kept


def test_what_is_kept_of_the_2023_text_is_what_its_json_says_but_for_the_lost_tenths(data: Path) -> None:
    for split in ("train", "val"):
        text = [e for e in uca_events(data / "v1_2023" / f"UCFCrime_{split}.txt.gz", "keep") if e.irregular]
        told = multiset(uca_events(data / "v1_2023" / f"UCFCrime_{split}.json.gz", "keep"))
        other = [event for event in text if not told[(event.video, *times(event), event.sentence)]]
        # the authors' own JSON dropped what stands behind `36 ` and `12.`
        places = {"train": ["line 4620", "line 4621", "line 4622"], "val": ["line 965"]}
        assert [event.place for event in other] == places[split]


def times(event: UcaEvent) -> tuple[int, int]:
    return round(10 * event.start_s), round(10 * event.end_s)


@pytest.mark.parametrize(
    ("line", "start_s", "end_s", "sentence", "words"),
    [
        ("00:12.8 00:36 .7 ## The car", 12.8, 36.7, "The car", "blank before its point"),
        ("00:15.3 00:165.1 ##Then", 15.3, 165.1, "Then", "seconds of three digits"),
        ("0:00 00:07.2 ##A man", 0, 7.2, "A man", "no tenths"),
        ("00:00:0 00:18.3 ##In a room", 0, 18.3, "In a room", "colon before its tenths"),
        ("00:00:00 00:08.9 ## something", 0, 8.9, "something", "no tenths"),
        ("00:00.6 00:12. ##1 Five women", 0.6, 12.1, "Five women", "behind the ##"),
        ("01:00:23.6 01:00:30.6 ##A man", 3623.6, 3630.6, "A man", None),
        ("59:58.8 01:00:06.5 ##A man", 3598.8, 3606.5, "A man", None),
        ("0:30.3 00:33.4 ##\tA\tman \u2019 ", 30.3, 33.4, "A\tman \u2019", None),
        ("00:50.6 00:66.0 ##A man ## left", 50.6, 66.0, "A man ## left", None),
    ],
)
def test_a_line_is_read_as_documented(
    line: str, start_s: float, end_s: float, sentence: str, words: str | None, tmp_path: Path
) -> None:
    (event,) = uca_events(write(tmp_path, f"Abuse001_x264 {line}\n"), "keep")
    assert (event.start_s, event.end_s, event.sentence) == (start_s, end_s, sentence)
    assert (event.irregular is None) if words is None else (words in str(event.irregular))
    assert len(uca_events(write(tmp_path, f"Abuse001_x264 {line}\n"), "leave_out")) == (words is None)


@pytest.mark.parametrize("irregular", ["refuse", "keep", "leave_out"])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"Abuse001_x264": {"duration": 9, "timestamps": [[1, 2]], "sentences": []}}', "1 timestamps and 0 sentences"),
        ('{"Abuse001_x264": {"duration": 9, "timestamps": [[2, 1]], "sentences": ["A"]}}', "2.0-1.0 s is not 0 <="),
        ('{"Abuse001_x264": {"duration": 9, "timestamps": [["1", 2]], "sentences": ["A"]}}', "not a number of seconds"),
        ('{"Abuse001_x264": {"duration": NaN, "timestamps": [[1, 2]], "sentences": ["A"]}}', "nan is not a number"),
        ('{"Abuse001_x264": {"duration": 1e300, "timestamps": [[1, 2]], "sentences": ["A"]}}', "is not a number"),
        ('{"Abuse001_x264": {"duration": 0, "timestamps": [[1, 2]], "sentences": ["A"]}}', "in 0.0 s"),
        ('{"Abuse001_x264": {"duration": 9, "timestamps": [[1, 2]], "sentences": [" "]}}', "no sentence"),
        ('{"Abuse001_x264": {"duration": 9, "timestamps": [[1]], "sentences": ["A"]}}', "entry 1: "),
        ('{"Abuse001_x264": {"duration": 9, "sentences": ["A"]}}', "entry 1: .*timestamps"),
        ('{"../Abuse001_x264": {"duration": 9, "timestamps": [[1, 2]], "sentences": ["A"]}}', "entry 1: "),
        ("Abuse001_x264 00:01 .x 00:02.5 ##A man\n", "line 1: .*is not an event"),
        ("Abuse001_x264 00:1.2 00:02.5 ##A man\n", "line 1: '00:1.2' is not a time"),
    ],
)
def test_other_damage_is_refused_under_every_option(text: str, words: str, irregular: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"^events\.txt: .*{words}"):
        uca_events(write(tmp_path, text), irregular)


def test_an_unknown_option_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="irregular is 'skip'; expected one of refuse, keep, leave_out"):
        uca_events(tmp_path, "skip")


def test_events_become_the_captions_of_their_videos(data: Path, current: dict[str, list[UcaEvent]]) -> None:
    videos = uca(data / "json" / "UCFCrime_Test.json")
    assert [video.name for video in videos] == list(dict.fromkeys(event.video for event in current["Test"]))
    assert sum(len(video.captions) for video in videos) == EVENTS["Test"]
    assert videos[0].captions[0][:2] == (36, 246)  # 1.2 to 8.2 s at 30 frames per second
    assert (videos[0].label, videos[0].category, videos[0].anomalies) == (1, "Abuse", None)
    normal = [video for video in videos if video.label == 0]
    assert (len(normal), {video.category for video in normal}) == (104, {"Normal"})
    assert all(video.anomalies == [] and video.n_frames is None for video in normal)
    assert {v.name: v.captions for v in uca(data / "txt" / "UCFCrime_Test.txt.gz")}.keys() == {v.name for v in videos}


@pytest.mark.parametrize(
    ("start_s", "end_s", "fps", "n_frames", "frames"),
    [
        (1.2, 8.2, 30, None, (36, 246)),
        (1.2, 8.2, 30, 100, (36, 100)),
        (1.2, 8.2, 30, 37, (36, 37)),
        (1.2, 8.2, 30, 36, None),
        (1.2, 1.21, 30, None, (36, 37)),
        (0, 0.1, 25, 9, (0, 2)),
    ],
)
def test_frames_of_an_event_are_half_open_at_least_one_and_clipped(
    start_s: float, end_s: float, fps: float, n_frames: int | None, frames: tuple[int, int] | None
) -> None:
    event = UcaEvent("Abuse001_x264", start_s, end_s, "A man.", None, "line 1")
    assert caption_frames(event, fps, n_frames) == frames


@pytest.mark.parametrize(("fps", "n_frames"), [(0, 9), (-1, 9), (float("nan"), 9), (30, 0)])
def test_a_rate_or_length_that_cannot_be_is_refused(fps: float, n_frames: int) -> None:
    with pytest.raises(ValueError, match="positive"):
        caption_frames(UcaEvent("Abuse001_x264", 0, 1, "A man.", None, "line 1"), fps, n_frames)


def test_events_beyond_the_last_frame_are_clipped_to_it(shared_data: Path, current: dict[str, list[UcaEvent]]) -> None:
    listed = json.loads((shared_data / "uca" / "derived" / "uca_irregular_entries.json").read_text())["current"]
    named = {split: {event.place: event for event in events} for split, events in current.items()}
    assert len(listed["events_end_beyond_frames_div_30"]) == 65
    for split, name, index, end_s, n_frames in listed["events_end_beyond_frames_div_30"]:
        event = named[split][f"{name} event {index + 1}"]
        frames = caption_frames(event, 30, n_frames)
        assert event.end_s == end_s
        assert frames is None or frames[1] == n_frames < round(30 * end_s)


def test_uca_splits_the_ucf_crime_test_videos_otherwise(shared_data: Path, current: dict[str, list[UcaEvent]]) -> None:
    tested = {video.name for video in ucf_crime(shared_data / "ucf_crime" / "lists" / "Anomaly_Test.txt")}
    found = {split: len(tested & {event.video for event in current[split]}) for split in EVENTS}
    assert found == {"Train": 214, "Val": 22, "Test": 50}


# class: test events, their videos, training events, normal test events (of 2,665), test events of other classes
ROWS = {
    words: {category: row for category, *row in rows}
    for words, rows in {
        "narrow": [
            ("Abuse", 16, 4, 126, 0.7, 5.6), ("Arrest", 47, 7, 211, 0.0, 0.6), ("Arson", 31, 18, 25, 0.1, 1.7),
            ("Assault", 19, 12, 62, 0.1, 4.8), ("Burglary", 18, 9, 92, 0.1, 2.4), ("Explosion", 30, 21, 82, 0.1, 2.0),
            ("Fighting", 9, 3, 66, 0.1, 2.4), ("RoadAccidents", 54, 32, 153, 0.1, 1.6),
            ("Robbery", 49, 15, 174, 0.0, 1.5), ("Shooting", 12, 7, 46, 0.4, 2.3), ("Shoplifting", 1, 1, 29, 0.3, 0.7),
            ("Stealing", 19, 5, 23, 0.0, 0.6), ("Vandalism", 22, 10, 46, 0.2, 2.2),
        ],
        "recommended": [
            ("Abuse", 21, 5, 164, 0.9, 7.1), ("Arrest", 49, 7, 218, 0.0, 1.0), ("Arson", 56, 19, 54, 0.2, 2.1),
            ("Assault", 22, 12, 81, 0.2, 7.3), ("Burglary", 37, 14, 201, 0.8, 4.0), ("Explosion", 35, 22, 89, 0.2, 2.7),
            ("Fighting", 24, 6, 120, 0.2, 7.0), ("RoadAccidents", 55, 32, 165, 0.1, 2.7),
            ("Robbery", 61, 18, 259, 0.4, 3.4), ("Shooting", 14, 8, 48, 0.4, 2.3),
            ("Shoplifting", 39, 7, 112, 2.4, 3.9), ("Stealing", 50, 8, 115, 0.8, 3.3),
            ("Vandalism", 28, 10, 62, 0.4, 6.0),
        ],
        "broad": [
            ("Abuse", 21, 5, 178, 1.4, 8.8), ("Arrest", 49, 7, 218, 0.0, 1.0), ("Arson", 56, 19, 54, 0.2, 2.1),
            ("Assault", 23, 12, 91, 1.3, 10.0), ("Burglary", 50, 15, 268, 2.6, 10.8),
            ("Explosion", 35, 22, 89, 0.2, 2.7), ("Fighting", 25, 6, 137, 1.3, 10.0),
            ("RoadAccidents", 55, 32, 165, 0.1, 2.7), ("Robbery", 61, 18, 259, 0.4, 3.4),
            ("Shooting", 14, 8, 48, 0.5, 4.8), ("Shoplifting", 62, 7, 156, 3.9, 7.7),
            ("Stealing", 50, 11, 177, 25.4, 15.1), ("Vandalism", 29, 10, 72, 1.0, 8.7),
        ],
    }.items()
}  # fmt: skip
# list: test events, their videos; events on the 140 anomalous UCF-Crime test videos, their videos
TOTALS = {"narrow": (327, 144, 200, 107), "recommended": (491, 168, 319, 127), "broad": (530, 172, 352, 130)}


def of_class(events: list[UcaEvent], category: str) -> list[UcaEvent]:
    """The events of one class's videos, by the definition of their names."""
    return [event for event in events if re.sub(r"\d+_x264$", "", event.video) == category]


@pytest.mark.parametrize("category", UCF_CRIME_CATEGORIES)
@pytest.mark.parametrize("words", ROWS)
def test_keywords_pick_the_published_number_of_events(
    current: dict[str, list[UcaEvent]], words: str, category: str
) -> None:
    test = of_class(current["Test"], category)
    hits = [event for event in test if matches(event.sentence, category, words)]
    fit = sum(matches(event.sentence, category, words) for event in of_class(current["Train"], category))
    normal = [event for event in current["Test"] if event.video.startswith("Normal_Videos")]
    own = {event.video for event in test + normal}
    others = [event for event in current["Test"] if event.video not in own]
    false, confused = (
        round(100 * sum(matches(event.sentence, category, words) for event in events) / len(events), 1)
        for events in (normal, others)
    )
    assert len(normal) == 2_665
    assert [len(hits), len({event.video for event in hits}), fit, false, confused] == ROWS[words][category]


@pytest.mark.parametrize("words", TOTALS)
def test_keywords_pick_the_published_totals(shared_data: Path, current: dict[str, list[UcaEvent]], words: str) -> None:
    annotated = ucf_crime(shared_data / "ucf_crime" / "annotations" / "Temporal_Anomaly_Annotation.txt")
    anomalous = {video.name for video in annotated if video.label}
    hits: list[list[UcaEvent]] = [[], []]
    for category in UCF_CRIME_CATEGORIES:
        tested = of_class(current["Test"], category)
        overlap = [event for events in current.values() for event in of_class(events, category)]
        overlap = [event for event in overlap if event.video in anomalous]
        for found, events in zip(hits, (tested, overlap), strict=True):
            found += [event for event in events if matches(event.sentence, category, words)]
    counts = [count for found in hits for count in (len(found), len({event.video for event in found}))]
    assert tuple(counts) == TOTALS[words]


def test_the_lists_are_those_that_were_counted(data: Path) -> None:
    derived = json.loads((data / "derived" / "uca_class_keywords.json").read_text())
    assert {n: {c: sorted(words) for c, words in lists.items()} for n, lists in KEYWORDS.items()} == {
        n: {c: sorted(set(entry["words"])) for c, entry in lists.items()} for n, lists in derived.items()
    }
    assert [(set(lists), len(lists)) for lists in KEYWORDS.values()] == [(set(UCF_CRIME_CATEGORIES), 13)] * 3


@pytest.mark.parametrize(
    ("sentence", "category", "words", "expected"),
    [
        ("FIRE!", "Arson", "narrow", True),
        ("The firefighters left.", "Arson", "narrow", False),
        ("Thick smoke, then fire", "Arson", "narrow", True),
        ("A car was rear-ended.", "RoadAccidents", "recommended", True),
        ("A car was rear ended.", "RoadAccidents", "recommended", False),
        ("a hit-and-run", "RoadAccidents", "narrow", True),
        ("a white car", "RoadAccidents", "narrow", False),
        ("", "Arson", "broad", False),
    ],
)
def test_a_word_counts_as_a_whole_and_in_any_case(sentence: str, category: str, words: str, expected: bool) -> None:
    assert matches(sentence, category, words) is expected


@pytest.mark.parametrize(("category", "words"), [("Normal", "narrow"), ("Arson", "wide")])
def test_a_list_that_is_not_there_is_refused(category: str, words: str) -> None:
    with pytest.raises(ValueError, match=rf"no list '{words}' of keywords for '{category}'"):
        matches("fire", category, words)


@pytest.mark.parametrize("kind", ["json", "txt"])
def test_all_events_are_read_in_half_a_second(data: Path, kind: str) -> None:
    taken = []
    for _ in range(3):  # the best of three, in time of this process: others may be using the machine
        start = time.process_time()
        count = sum(len(uca_events(file)) for file in sorted((data / kind).iterdir()))
        taken.append(time.process_time() - start)
    print(f"\nUCA, {count} events of {kind}: {min(taken):.3f} s")
    assert count == 23_542
    assert min(taken) < 0.5


def test_a_byte_less_file_of_the_release_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "revised_en_UCFCrime_Train.json").write_bytes(b"")
    with pytest.raises(ValueError, match=r"revised_en_UCFCrime_Train\.json: no videos in it"):
        uca_events(tmp_path / "revised_en_UCFCrime_Train.json")
    (tmp_path / "empty.gz").write_bytes(gzip.compress(b""))
    with pytest.raises(ValueError, match=r"empty\.gz: no videos in it"):
        uca_events(tmp_path / "empty.gz")
