"""Draws stories from the grammar in plots.py."""

from __future__ import annotations

import random
import re

from . import plots

WORD = re.compile(r"[A-Za-z]+")
SLOT = re.compile(r"\{\w+\}")
PRONOUNS = {"she": ("her", "her"), "he": ("his", "him")}  # subject -> (possessive, object)


def story(rng: random.Random) -> str:
    """One story: an opening, then the beats of one plot, all about the same characters and things."""
    plot = rng.choice(plots.PLOTS)
    slots = _characters(rng)
    for names, options in (plots.SETTING | plot.choices).items():
        slots |= zip(names.split(" / "), _draw(rng, options).split(" / "), strict=True)
    beats = [_draw(rng, alternatives) for alternatives in (plots.OPENINGS, *plot.beats)]
    return " ".join(_fill(beat, slots) for beat in beats)


def words(text: str) -> list[str]:
    """The words of a text in order, without punctuation."""
    return WORD.findall(text)


def vocabulary() -> frozenset[str]:
    """Every word that a story can hold."""
    texts = [plots.GIRLS, plots.BOYS, plots.ANIMALS, plots.OPENINGS, *plots.CHILDREN.values(), *plots.SETTING.values()]
    for plot in plots.PLOTS:
        texts += [*plot.choices.values(), *plot.beats]
    for he, (his, him) in PRONOUNS.items():
        texts += [he, his, him, he.capitalize(), his.capitalize()]
    return frozenset(words(SLOT.sub(" ", " ".join(texts))))


def _characters(rng: random.Random) -> dict[str, str]:
    """Slots of the hero, a child or an animal, and of a friend, an animal of another kind and name."""
    girls, boys, animals = (names.split(" | ") for names in (plots.GIRLS, plots.BOYS, plots.ANIMALS))
    pronoun = dict.fromkeys(girls, "she") | dict.fromkeys(boys, "he")
    hero, friend = rng.sample(girls + boys, 2)
    kind, friend_kind = rng.sample(animals, 2)
    if rng.random() < 0.5:
        kind = plots.CHILDREN[pronoun[hero]]
    he = pronoun[hero]
    his, him = PRONOUNS[he]
    friend_his, friend_him = PRONOUNS[pronoun[friend]]
    slots = {
        "hero": hero,
        "kind": kind,
        "he": he,
        "his": his,
        "him": him,
        "He": he.capitalize(),
        "His": his.capitalize(),
    }
    return slots | {"friend": friend, "friend_kind": friend_kind, "friend_his": friend_his, "friend_him": friend_him}


def _draw(rng: random.Random, alternatives: str) -> str:
    return rng.choice(alternatives.split(" | "))


def _fill(text: str, slots: dict[str, str]) -> str:
    """Replace slots until none is left, since a drawn value may itself name the hero."""
    while SLOT.search(text):
        text = text.format_map(slots)
    return text
