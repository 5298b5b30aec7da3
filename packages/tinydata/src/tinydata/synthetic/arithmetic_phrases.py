"""What the arithmetic problems say, in English and in Spanish.

Each field holds paraphrases of one sentence. Slots: `{name} {friend} {third}` are people, `{items}` a plural with its
`{how_many}`, the letters are numbers (2 or more, so that every noun is plural). A field ending in `_step` explains the
calculation that follows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Language = Literal["english", "spanish"]
Variants = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Phrases:
    """One language. `items` are (plural, how many of them)."""

    question: str
    answer: str
    items: tuple[tuple[str, str], ...]
    containers: Variants
    expression: Variants
    start: Variants
    gain: Variants
    loss: Variants
    total_now: Variants
    gain_step: Variants
    loss_step: Variants
    groups: Variants
    groups_added: Variants
    groups_taken: Variants
    groups_total: Variants
    share: Variants
    groups_step: Variants
    share_step: Variants
    price: Variants
    second_price: Variants
    cost: Variants
    paid: Variants
    cost_step: Variants
    sum_step: Variants
    change_step: Variants
    times_as_many: Variants
    fewer: Variants
    has_how_many: Variants
    two_together: Variants
    three_together: Variants
    times_step: Variants
    fewer_step: Variants
    trip: Variants
    second_leg: Variants
    distance: Variants
    trip_length: Variants
    distance_step: Variants
    left_step: Variants
    rectangle: Variants
    area: Variants
    perimeter: Variants
    fence: Variants
    fence_cost: Variants
    area_step: Variants
    half_perimeter_step: Variants
    perimeter_step: Variants
    fence_step: Variants


_ENGLISH_ITEMS = (
    "apples", "books", "marbles", "stickers", "shells", "pencils", "cards", "coins", "eggs", "flowers", "stones",
    "cookies", "stamps", "balloons", "oranges", "buttons", "candles", "tickets", "nuts", "cups",
)  # fmt: skip

ENGLISH = Phrases(
    question="Question",
    answer="Answer",
    items=tuple((noun, "How many") for noun in _ENGLISH_ITEMS),
    containers=("boxes", "bags", "baskets", "jars", "rows", "shelves"),
    expression=(
        "Compute {expression}.",
        "What is {expression}?",
        "{expression} = ?",
        "Work out {expression}.",
        "Find the value of {expression}.",
    ),
    start=("{name} has {a} {items}.", "At first, {name} has {a} {items}.", "{name} starts with {a} {items}."),
    gain=(
        "{name} finds {b} more.",
        "{name} buys {b} more.",
        "{friend} gives {b} more to {name}.",
        "Then {name} gets {b} more.",
    ),
    loss=(
        "{name} gives {b} to {friend}.",
        "{name} loses {b} of them.",
        "{name} sells {b} of them.",
        "Then {name} puts {b} away.",
    ),
    total_now=("How many {items} does {name} have now?", "How many {items} are left for {name} in the end?"),
    gain_step=("{a} and {b} more make", "Add {b} to {a}", "With {b} more than {a}"),
    loss_step=("{a} without {b} leaves", "Take {b} from {a}", "When {b} of {a} are gone"),
    groups=(
        "There are {a} {containers} with {b} {items} in each.",
        "{name} has {a} {containers}. Each one holds {b} {items}.",
    ),
    groups_added=("{friend} brings {b} more {items}.", "Then {b} more {items} are added."),
    groups_taken=("{b} of the {items} are taken away.", "{friend} takes {b} of the {items}."),
    groups_total=("How many {items} are there now?", "How many {items} are there in all at the end?"),
    share=(
        "They are shared equally by {b} children. How many {items} does each child get?",
        "{b} friends share them equally. How many {items} does each friend get?",
    ),
    groups_step=("{a} groups of {b} make", "{a} times {b} is", "Multiply {a} by {b}"),
    share_step=("{a} shared by {b} is", "Divide {a} by {b}"),
    price=(
        "{name} buys {a} {items} for {b} dollars each.",
        "The {items} cost {b} dollars each, and {name} buys {a} of them.",
    ),
    second_price=(
        "{name} also buys {c} {others} for {d} dollars each.",
        "Then {name} buys {c} {others} at {d} dollars each.",
    ),
    cost=("How many dollars does {name} pay?", "How much does it cost in dollars?"),
    paid=(
        "{name} pays with {b} dollars. How many dollars does {name} get back?",
        "{name} has {b} dollars. How many dollars are left?",
    ),
    cost_step=(
        "{a} at {b} dollars each cost",
        "The price of {a} for {b} dollars each is",
        "Multiply {a} by {b} dollars",
    ),
    sum_step=("Together that is", "Add {a} and {b}", "The sum of {a} and {b} is"),
    change_step=("From {a}, take away {b}", "{a} minus {b} leaves"),
    times_as_many=(
        "{name} has {a} {items}. {friend} has {b} times as many.",
        "{name} collects {a} {items}, and {friend} collects {b} times as many.",
    ),
    fewer=("{third} has {b} fewer than {friend}.", "{friend} has {b} more than {third}."),
    has_how_many=("How many {items} does {friend} have?",),
    two_together=("How many {items} do {name} and {friend} have together?",),
    three_together=("How many {items} do {name}, {friend} and {third} have together?",),
    times_step=("{a} times {b} is", "Multiply {a} by {b}"),
    fewer_step=("{b} fewer than {a} is", "Subtract {b} from {a}"),
    trip=(
        "A train goes {a} kilometers an hour for {b} hours.",
        "{name} drives for {b} hours at {a} kilometers an hour.",
    ),
    second_leg=(
        "After that, it is {c} kilometers an hour for {d} hours.",
        "The next {d} hours are at {c} kilometers an hour.",
    ),
    distance=("How many kilometers is that?", "What is the distance in kilometers?"),
    trip_length=(
        "The whole way is {b} kilometers. How many kilometers are left?",
        "How many kilometers are left if the way is {b} kilometers long?",
    ),
    distance_step=("{b} hours at {a} kilometers an hour are", "Speed times time is"),
    left_step=("Of {a} kilometers, {b} are done, so the rest is", "Take {b} from {a}"),
    rectangle=(
        "A garden is {a} meters long and {b} meters wide.",
        "A rectangle is {a} meters by {b} meters.",
        "{name} has a field of {a} meters by {b} meters.",
    ),
    area=("What is its area in square meters?", "How many square meters is that?"),
    perimeter=("How many meters is it around the outside?", "What is its perimeter in meters?"),
    fence=("A fence around it costs {c} dollars a meter.", "It gets a fence for {c} dollars a meter."),
    fence_cost=("How many dollars is the whole fence?", "How many dollars does the fence cost?"),
    area_step=("Length times width is", "The area is {a} times {b}"),
    half_perimeter_step=("One long side and one short side are", "Length plus width is"),
    perimeter_step=("There are two of each, so around it is", "Twice that is"),
    fence_step=("{a} meters at {b} dollars a meter cost", "The fence costs"),
)

SPANISH = Phrases(
    question="Pregunta",
    answer="Respuesta",
    items=(
        ("manzanas", "Cuántas"),
        ("libros", "Cuántos"),
        ("canicas", "Cuántas"),
        ("lápices", "Cuántos"),
        ("conchas", "Cuántas"),
        ("huevos", "Cuántos"),
        ("flores", "Cuántas"),
        ("globos", "Cuántos"),
        ("monedas", "Cuántas"),
        ("botones", "Cuántos"),
        ("galletas", "Cuántas"),
        ("dulces", "Cuántos"),
        ("naranjas", "Cuántas"),
        ("sellos", "Cuántos"),
    ),
    containers=("cajas", "bolsas", "cestas", "filas"),
    expression=(
        "Calcula {expression}.",
        "¿Cuánto es {expression}?",
        "{expression} = ?",
        "Halla el valor de {expression}.",
    ),
    start=("{name} tiene {a} {items}.", "Al principio, {name} tiene {a} {items}."),
    gain=("{name} encuentra {b} más.", "{name} compra {b} más.", "{friend} le da {b} más a {name}."),
    loss=("{name} le da {b} a {friend}.", "{name} pierde {b}.", "{name} vende {b}."),
    total_now=("¿{how_many} {items} tiene {name} ahora?", "¿{how_many} {items} le quedan a {name} al final?"),
    gain_step=("{a} y {b} más son", "Sumamos {b} a {a}"),
    loss_step=("A {a} le quitamos {b}", "{a} menos {b} es"),
    groups=(
        "Hay {a} {containers} con {b} {items} en cada una.",
        "{name} tiene {a} {containers}. En cada una hay {b} {items}.",
    ),
    groups_added=("{friend} trae {b} {items} más.", "Luego llegan {b} {items} más."),
    groups_taken=("{friend} se lleva {b} {items}.", "Luego se pierden {b}."),
    groups_total=("¿{how_many} {items} hay ahora?", "¿{how_many} {items} hay en total al final?"),
    share=(
        "Se reparten en partes iguales entre {b} niños. ¿{how_many} {items} recibe cada niño?",
        "Entre {b} amigos se reparten por igual. ¿{how_many} {items} recibe cada amigo?",
    ),
    groups_step=("{a} grupos de {b} son", "{a} por {b} es"),
    share_step=("{a} entre {b} es", "Dividimos {a} entre {b}"),
    price=(
        "{name} compra {a} {items} a {b} pesos por unidad.",
        "Cada unidad cuesta {b} pesos, y {name} compra {a} {items}.",
    ),
    second_price=(
        "También compra {c} {others} a {d} pesos por unidad.",
        "Después, {name} compra {c} {others} a {d} pesos por unidad.",
    ),
    cost=("¿Cuántos pesos paga {name}?", "¿Cuánto cuesta todo en pesos?"),
    paid=(
        "{name} paga con {b} pesos. ¿Cuántos pesos le devuelven?",
        "{name} tiene {b} pesos. ¿Cuántos pesos le quedan?",
    ),
    cost_step=("{a} a {b} pesos por unidad cuestan", "Multiplicamos {a} por {b} pesos"),
    sum_step=("Sumamos {a} y {b}", "En total son"),
    change_step=("A {a} le restamos {b}", "{a} menos {b} es"),
    times_as_many=("{name} tiene {a} {items}. {friend} tiene {b} veces esa cantidad.",),
    fewer=("{third} tiene {b} menos que {friend}.", "{friend} tiene {b} más que {third}."),
    has_how_many=("¿{how_many} {items} tiene {friend}?",),
    two_together=("¿{how_many} {items} tienen {name} y {friend} en total?",),
    three_together=("¿{how_many} {items} tienen {name}, {friend} y {third} en total?",),
    times_step=("{a} veces {b} es", "Multiplicamos {a} por {b}"),
    fewer_step=("{b} menos que {a} es", "Restamos {b} de {a}"),
    trip=(
        "Un tren va a {a} kilómetros por hora durante {b} horas.",
        "{name} conduce {b} horas a {a} kilómetros por hora.",
    ),
    second_leg=("Después son {d} horas a {c} kilómetros por hora.",),
    distance=("¿Cuántos kilómetros son?", "¿Cuál es la distancia en kilómetros?"),
    trip_length=("El camino mide {b} kilómetros. ¿Cuántos kilómetros faltan?",),
    distance_step=("{b} horas a {a} kilómetros por hora son", "Velocidad por tiempo es"),
    left_step=("De {a} kilómetros ya están hechos {b}, así que faltan", "Restamos {b} de {a}"),
    rectangle=(
        "Un jardín mide {a} metros de largo y {b} metros de ancho.",
        "Un rectángulo mide {a} metros por {b} metros.",
    ),
    area=("¿Cuál es su área en metros cuadrados?", "¿Cuántos metros cuadrados son?"),
    perimeter=("¿Cuál es su perímetro en metros?", "¿Cuántos metros mide todo el borde?"),
    fence=("Una cerca alrededor cuesta {c} pesos por metro.",),
    fence_cost=("¿Cuántos pesos cuesta toda la cerca?",),
    area_step=("Largo por ancho es", "El área es {a} por {b}"),
    half_perimeter_step=("Largo más ancho es", "Un lado largo y un lado corto son"),
    perimeter_step=("Hay dos de cada uno, así que el borde mide", "El doble es"),
    fence_step=("{a} metros a {b} pesos por metro cuestan", "La cerca cuesta"),
)

PHRASES: dict[Language, Phrases] = {"english": ENGLISH, "spanish": SPANISH}
