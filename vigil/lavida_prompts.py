"""What LAVIDA asks an MLLM, with the phrases that count as anomalous, and the answers that hold <SEG>."""

from __future__ import annotations

from collections.abc import Sequence

import torch

SEG = "<SEG>"
# the paper's example first, Sec. 3.5, asked in every test; then the released code's five, of which it draws one
QUESTIONS = (
    "Find the anomaly in this {kind}. Anomaly types may contain {phrases}.",
    "Can you segment the anomalies in this {kind}? Anomalies include {phrases}. ",
    "Please segment the anomalies in this {kind}. Abnormal cases contain {phrases}. ",
    "Detect anomalies in this {kind}. Target types: {phrases}. ",
    "Monitor anomalies in this sceen. Anomalies include {phrases}. ",  # spelled so there
    "Segment abnormal events in this sceen. Abnormal events include {phrases}. ",
)
ANSWERS = (
    f"Sure, it is {SEG}.",
    f"It is {SEG}.",
    f"Sure, {SEG}.",
    f"Sure, the segmentation result is {SEG}.",
    f"{SEG}.",
)
# ours, where nobody says what is anomalous: what can be seen, since a picture does not show what the law calls it
GENERIC = (
    "a fight", "a person beating another person", "a person lying on the ground", "a gun", "an explosion", "fire",
    "smoke", "a car crash", "a person running", "a person climbing", "broken glass", "a bicycle", "a vehicle",
)  # fmt: skip


def check_templates(questions: Sequence[str], answers: Sequence[str]) -> None:
    """Raises ValueError for a question without room for the phrases, or an answer that does not hold <SEG> once."""
    wrong = [text for text in questions if text.count("{phrases}") != 1]
    wrong += [text for text in answers if text.count(SEG) != 1]
    if wrong or not questions or not answers:
        raise ValueError(
            f"questions and answers {wrong or 'are missing'}: at least one of each is expected, '{{phrases}}' once in "
            f"a question ('{{kind}}' becomes video or image), {SEG} once in an answer"
        )


def conversation(
    questions: Sequence[str], answers: Sequence[str], phrases: Sequence[Sequence[str]], kind: str, draw: bool
) -> tuple[list[str], list[str]]:
    """A question about the phrases of each of B clips, and an answer to it.

    kind: "video" or "image". draw: one of each uniformly, by torch's random state, as in training; else the first.
    """
    asked, said = [], []
    for own in phrases:
        question, answer = (
            list(texts)[int(torch.randint(len(texts), ())) if draw else 0] for texts in (questions, answers)
        )
        asked.append(question.replace("{kind}", kind).replace("{phrases}", ", ".join(own)))
        said.append(answer)
    return asked, said


def checked_categories(phrases: Sequence[str], most: int, where: str) -> list[str]:
    """The phrases that a test asks about. Raises ValueError for none, an empty one, one twice, or more than `most`."""
    phrases = [" ".join(phrase.split()) for phrase in phrases]
    if not phrases or not all(phrases):
        raise ValueError(
            f"categories {list(phrases)} ({where}): at least one, and none empty, is expected; say what is anomalous, "
            """as --model.categories '["fire", "a person climbing a fence"]', or --model.categories generic"""
        )
    twice = sorted({phrase for phrase in phrases if phrases.count(phrase) > 1})
    if twice:
        raise ValueError(f"categories ({where}): {', '.join(twice)} more than once; say each once")
    if len(phrases) > most:
        raise ValueError(
            f"{len(phrases)} categories ({where}): at most {most} are expected, since a fit asks about few at a time "
            "(data.max_categories); give fewer, or raise model.category_limit"
        )
    return phrases
