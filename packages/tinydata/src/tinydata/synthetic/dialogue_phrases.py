"""What the dialogues say, in English and in Spanish. Slots: `{town}` and other names, `{a}`, `{b}` and `{n}` numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tinydata.synthetic.arithmetic_phrases import Language


@dataclass(frozen=True, slots=True)
class DialoguePhrases:
    """One language. before: adjectives that stand before a noun; sorts: what can be listed, with its plural."""

    signs: Mapping[str, str]
    how_much: str
    and_then: str
    calculate: str
    it_is: str
    snippet: str
    nothing_found: str
    town_questions: Mapping[str, str]
    town_answers: Mapping[str, str]
    asked_for: Mapping[str, str]
    look_up: str
    not_known: str
    count: str
    capitals: str
    list: str
    contains: str
    sorts: tuple[tuple[str, str], ...]
    noun: str
    before: tuple[str, ...]
    verbs: tuple[str, ...]
    how: tuple[str, ...]
    near: str
    when: tuple[str, ...]


ENGLISH = DialoguePhrases(
    signs={"+": "plus", "-": "minus", "*": "times", "/": "divided by"},
    how_much="What is {a} {sign} {b}?",
    and_then="And {sign} {b}?",
    calculate="{a} {sign} {b} is a calculation: {expression}.",
    it_is="{a} {sign} {b} is {value}.",
    snippet=(
        "{town} is a town in {land}. It has {people} inhabitants. The river {river} flows through it. "
        "Its mayor is {mayor}."
    ),
    nothing_found="error: nothing found",
    town_questions={
        "inhabitants": "How many inhabitants does {town} have?",
        "river": "Which river flows through {town}?",
        "mayor": "Who is the mayor of {town}?",
    },
    town_answers={
        "inhabitants": "{town} has {value} inhabitants.",
        "river": "The river {value} flows through {town}.",
        "mayor": "The mayor of {town} is {value}.",
    },
    asked_for={"inhabitants": "inhabitants", "river": "river", "mayor": "mayor"},
    look_up="I look up the {word} of {town}.",
    not_known="I found nothing about {town}.",
    count="Write a sentence of exactly {n} words about this animal: {animal}.",
    capitals="Write in capitals: {text}",
    list="Name {n} {name} in a numbered list.",
    contains='Write a sentence with the word "{word}".',
    sorts=(("animals", "animals"), ("colours", "colours"), ("places", "places")),
    noun="The {before} {behind} {noun}",
    before=("old", "young", "big"),
    verbs=("sleeps", "sings", "waits", "smiles", "works"),
    how=("quietly", "alone", "happily"),
    near="near the {place}",
    when=("today", "again", "now"),
)

SPANISH = DialoguePhrases(
    signs={"+": "más", "-": "menos", "*": "por", "/": "entre"},
    how_much="¿Cuánto es {a} {sign} {b}?",
    and_then="¿Y {sign} {b}?",
    calculate="{a} {sign} {b} es un cálculo: {expression}.",
    it_is="{a} {sign} {b} es {value}.",
    snippet=(
        "{town} es un pueblo de {land}. Tiene {people} habitantes. Por él pasa el río {river}. "
        "Quien lo gobierna es {mayor}."
    ),
    nothing_found="error: nothing found",
    town_questions={
        "inhabitants": "¿Cuántos habitantes tiene {town}?",
        "river": "¿Qué río pasa por {town}?",
        "mayor": "¿Quién gobierna {town}?",
    },
    town_answers={
        "inhabitants": "{town} tiene {value} habitantes.",
        "river": "El río {value} pasa por {town}.",
        "mayor": "Quien gobierna {town} es {value}.",
    },
    asked_for={"inhabitants": "habitantes", "river": "río", "mayor": "gobierna"},
    look_up="Busco {town}: {word}.",
    not_known="No encontré nada sobre {town}.",
    count="Escribe una frase de exactamente {n} palabras sobre este animal: {animal}.",
    capitals="Escribe en mayúsculas: {text}",
    list="Nombra {n} {name} en una lista numerada.",
    contains='Escribe una frase con la palabra "{word}".',
    sorts=(("animals", "animales"), ("colours", "colores"), ("places", "lugares")),
    noun="El {before} {noun} {behind}",
    before=("gran", "joven", "pobre"),
    verbs=("duerme", "canta", "espera", "sonríe", "trabaja"),
    how=("tranquilamente", "solo", "felizmente"),
    near="cerca del {place}",
    when=("hoy", "siempre", "ahora"),
)

DIALOGUE_PHRASES: Mapping[Language, DialoguePhrases] = MappingProxyType({"english": ENGLISH, "spanish": SPANISH})
