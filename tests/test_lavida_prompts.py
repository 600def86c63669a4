"""LAVIDA's templates, and the categories that a test asks about."""

from __future__ import annotations

import pytest
import torch

from vigil.lavida_prompts import ANSWERS, GENERIC, QUESTIONS, check_templates, checked_categories, conversation

PHRASES = [["fire"], ["a red car", "smoke"]]


def test_a_test_asks_the_papers_question_every_time() -> None:
    asked, said = conversation(QUESTIONS, ANSWERS, PHRASES, "video", draw=False)
    assert asked == [
        "Find the anomaly in this video. Anomaly types may contain fire.",
        "Find the anomaly in this video. Anomaly types may contain a red car, smoke.",
    ]
    assert said == ["Sure, it is <SEG>."] * 2


def test_training_draws_every_template_and_by_the_random_state_alone() -> None:
    def draw() -> tuple[list[str], list[str]]:
        torch.manual_seed(0)
        return conversation(QUESTIONS, ANSWERS, PHRASES * 40, "image", draw=True)

    asked, said = draw()
    assert (asked, said) == draw()
    assert set(said) == set(ANSWERS)
    assert len({text for text in asked if "fire" in text}) == len(QUESTIONS)
    assert not any("video" in text for text in asked)


def test_templates_without_room_for_what_they_are_for_are_refused() -> None:
    check_templates(QUESTIONS, ANSWERS)
    for questions, answers in (
        (["What?"], ANSWERS),
        (QUESTIONS, ["It is."]),
        (QUESTIONS, ["<SEG> <SEG>"]),
        ([], ANSWERS),
    ):
        with pytest.raises(ValueError, match=r"'\{phrases\}' once in a question"):
            check_templates(questions, answers)


@pytest.mark.parametrize(
    ("phrases", "message"),
    [
        ([], r"categories \[\] \(given\): at least one, and none empty"),
        (["fire", " "], "at least one, and none empty, is expected; say what is anomalous"),
        (["fire", "fire "], "fire more than once"),
        (
            [f"thing {i}" for i in range(200)],
            r"200 categories \(given\): at most 40 are expected.*model.category_limit",
        ),
    ],
)
def test_no_empty_repeated_or_too_many_categories(phrases: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checked_categories(phrases, 40, "given")


def test_words_are_taken_as_given_but_for_blanks() -> None:
    assert checked_categories(["a person  climbing a fence ", "fire"], 2, "given") == [
        "a person climbing a fence",
        "fire",
    ]
    assert checked_categories(GENERIC, 40, "generic") == list(GENERIC)
