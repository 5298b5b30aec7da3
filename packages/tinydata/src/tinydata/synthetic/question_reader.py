"""What a word problem comes to, read sentence by sentence: each tells of an amount, adds to it, takes from it, or asks for it.

Nothing is shared with what wrote the questions. English and Spanish; a sentence that is not known is an error, not a guess.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from tinydata.arithmetic_expression import ExpressionError, evaluate


class Unread(ValueError):
    """Why a question or a solution cannot be followed, in a few words."""


@dataclass
class _Tale:
    """What was told so far: the amount, whose it is, what others have, and the sides of a rectangle."""

    amount: int = 0
    holder: str = ""
    people: dict[str, int] = field(default_factory=dict)
    sides: tuple[int, int] = (0, 0)
    asked: bool = False


_N, _W = r"(\d+)", r"\w+"


def computed(left: int, sign: str, right: int) -> int:
    if sign == "/" and (right == 0 or left % right):
        raise Unread(f"{left}/{right} is no whole number")
    return left // right if sign == "/" else {"+": left + right, "-": left - right, "*": left * right}[sign]


def amount_asked_for(question: str) -> int:
    """What the question comes to. Raises Unread where it cannot be read, or comes to nothing clear."""
    if found := _EXPRESSION.fullmatch(question):
        try:
            value = evaluate(found[1] or found[2])
        except ExpressionError:
            raise Unread("the expression cannot be read") from None
        if value.denominator != 1:
            raise Unread("the expression is no whole number")
        return int(value)
    tale = _Tale()
    for sentence in re.split(r"(?<=[.?]) ", question):
        for pattern, happens in _SPANISH if "¿" in question else _ENGLISH:
            if found := pattern.fullmatch(sentence):
                happens(tale, *(group for group in found.groups() if group is not None))
                break
        else:
            raise Unread(f"{sentence!r} is not understood")
    if not tale.asked:
        raise Unread("nothing is asked")
    return tale.amount


_EXPRESSION = re.compile(
    r"(?:Compute|What is|Work out|Find the value of|Calcula|¿Cuánto es|Halla el valor de) ([\d +*/()-]+)[.?]"
    r"|([\d +*/()-]+) = \?"
)


# --- what sentences do to a tale -----------------------------------------------------------------------------------------


def _has(tale: _Tale, who: str, count: str) -> None:
    tale.amount = tale.people[who] = int(count)
    tale.holder = who


def _times(tale: _Tale, count: str) -> None:
    tale.amount *= int(count)


def _product(tale: _Tale, one: str, other: str) -> None:
    tale.amount += int(one) * int(other)


def _more(tale: _Tale, count: str) -> None:
    tale.amount += int(count)


def _less(tale: _Tale, count: str) -> None:
    tale.amount -= int(count)


def _out_of(tale: _Tale, count: str) -> None:
    """An amount from which what was told so far goes off."""
    tale.amount = int(count) - tale.amount


def _left_of(tale: _Tale, count: str) -> None:
    _out_of(tale, count)
    _ask(tale)


def _shared(tale: _Tale, count: str) -> None:
    tale.amount = computed(tale.amount, "/", int(count))


def _times_as_many(tale: _Tale, who: str, count: str) -> None:
    tale.people[who] = tale.people.get(tale.holder, 0) * int(count)


def _both(tale: _Tale, who: str, count: str, other: str, times: str) -> None:
    _has(tale, who, count)
    _times_as_many(tale, other, times)


def _fewer(tale: _Tale, who: str, count: str, than: str) -> None:
    if than not in tale.people:
        raise Unread(f"nobody says what {than} has")
    tale.people[who] = tale.people[than] - int(count)


def _more_than(tale: _Tale, who: str, count: str, than: str) -> None:
    _fewer(tale, than, count, who)


def _sides(tale: _Tale, one: str, other: str) -> None:
    tale.sides = (int(one), int(other))


def _area(tale: _Tale) -> None:
    tale.amount = tale.sides[0] * tale.sides[1]
    _ask(tale)


def _around(tale: _Tale) -> None:
    tale.amount = 2 * sum(tale.sides)
    _ask(tale)


def _fence(tale: _Tale, price: str) -> None:
    tale.amount = 2 * sum(tale.sides) * int(price)


def _ask(tale: _Tale) -> None:
    tale.asked = True


def _ask_of(tale: _Tale, *who: str) -> None:
    """What they have together."""
    unknown = next((name for name in who if name not in tale.people), None)
    if unknown is not None:
        raise Unread(f"nobody says what {unknown} has")
    tale.amount = sum(tale.people[name] for name in who)
    _ask(tale)


# the first that fits a whole sentence
_Rules = tuple[tuple[re.Pattern[str], Callable[..., None]], ...]


def _rules(*rows: tuple[str, Callable[..., None]]) -> _Rules:
    return tuple((re.compile(pattern), happens) for pattern, happens in rows)


_ENGLISH = _rules(
    (rf"(?:At first, )?({_W}) (?:has|starts with) {_N} (?!dollars){_W}\.", _has),
    (rf"(?:There are) {_N} {_W} with {_N} {_W} in each\.", _product),
    (rf"Each one holds {_N} {_W}\.", _times),
    (rf"{_W} (?:finds|buys) {_N} more\.|{_W} gives {_N} more to {_W}\.|Then {_W} gets {_N} more\.", _more),
    (rf"(?:{_W} brings|Then) {_N} more {_W}(?: are added)?\.", _more),
    (rf"{_W} gives {_N} to {_W}\.|{_W} (?:loses|sells) {_N} of them\.|Then {_W} puts {_N} away\.", _less),
    (rf"{_N} of the {_W} are taken away\.|{_W} takes {_N} of the {_W}\.", _less),
    (rf"They are shared equally by {_N} children\.|{_N} friends share them equally\.", _shared),
    (rf"(?:Then )?{_W}(?: also)? buys {_N} {_W} (?:for|at) {_N} dollars each\.", _product),
    (rf"The {_W} cost {_N} dollars each, and {_W} buys {_N} of them\.", _product),
    (rf"{_W} (?:pays with|has) {_N} dollars\.", _out_of),
    (rf"({_W}) has {_N} times as many\.", _times_as_many),
    (rf"({_W}) collects {_N} {_W}, and ({_W}) collects {_N} times as many\.", _both),
    (rf"({_W}) has {_N} fewer than ({_W})\.", _fewer),
    (rf"({_W}) has {_N} more than ({_W})\.", _more_than),
    (rf"(?:A train goes|After that, it is) {_N} kilometers an hour for {_N} hours\.", _product),
    (rf"{_W} drives for {_N} hours at {_N} kilometers an hour\.", _product),
    (rf"The next {_N} hours are at {_N} kilometers an hour\.", _product),
    (rf"The whole way is {_N} kilometers\.", _out_of),
    (rf"How many kilometers are left if the way is {_N} kilometers long\?", _left_of),
    (rf"A garden is {_N} meters long and {_N} meters wide\.", _sides),
    (rf"(?:A rectangle is|{_W} has a field of) {_N} meters by {_N} meters\.", _sides),
    (rf"(?:A fence around it costs|It gets a fence for) {_N} dollars a meter\.", _fence),
    (r"What is its area in square meters\?|How many square meters is that\?", _area),
    (r"How many meters is it around the outside\?|What is its perimeter in meters\?", _around),
    (rf"How many {_W} does ({_W}) have\?", _ask_of),
    (rf"How many {_W} do ({_W}) and ({_W}) have together\?", _ask_of),
    (rf"How many {_W} do ({_W}), ({_W}) and ({_W}) have together\?", _ask_of),
    (rf"How many {_W} (?:does {_W} have now|are left for {_W} in the end|are there now)\?", _ask),
    (rf"How many {_W} (?:are there in all at the end|does each (?:child|friend) get)\?", _ask),
    (rf"How many dollars (?:does {_W} (?:pay|get back)|are left|is the whole fence|does the fence cost)\?", _ask),
    (r"How much does it cost in dollars\?|How many kilometers (?:is that|are left)\?", _ask),
    (r"What is the distance in kilometers\?", _ask),
)
_SPANISH = _rules(
    (rf"(?:Al principio, )?({_W}) tiene {_N} (?!pesos){_W}\.", _has),
    (rf"Hay {_N} {_W} con {_N} {_W} en cada una\.", _product),
    (rf"En cada una hay {_N} {_W}\.", _times),
    (rf"{_W} (?:encuentra|compra) {_N} más\.|{_W} le da {_N} más a {_W}\.", _more),
    (rf"(?:{_W} trae|Luego llegan) {_N} {_W} más\.", _more),
    (rf"{_W} le da {_N} a {_W}\.|{_W} (?:pierde|vende) {_N}\.", _less),
    (rf"{_W} se lleva {_N} {_W}\.|Luego se pierden {_N}\.", _less),
    (rf"Se reparten en partes iguales entre {_N} niños\.|Entre {_N} amigos se reparten por igual\.", _shared),
    (rf"(?:También|{_W}|Después, {_W}) compra {_N} {_W} a {_N} pesos por unidad\.", _product),
    (rf"Cada unidad cuesta {_N} pesos, y {_W} compra {_N} {_W}\.", _product),
    (rf"{_W} (?:paga con|tiene) {_N} pesos\.", _out_of),
    (rf"({_W}) tiene {_N} veces esa cantidad\.", _times_as_many),
    (rf"({_W}) tiene {_N} menos que ({_W})\.", _fewer),
    (rf"({_W}) tiene {_N} más que ({_W})\.", _more_than),
    (rf"Un tren va a {_N} kilómetros por hora durante {_N} horas\.", _product),
    (rf"(?:{_W} conduce|Después son) {_N} horas a {_N} kilómetros por hora\.", _product),
    (rf"El camino mide {_N} kilómetros\.", _out_of),
    (rf"Un jardín mide {_N} metros de largo y {_N} metros de ancho\.", _sides),
    (rf"Un rectángulo mide {_N} metros por {_N} metros\.", _sides),
    (rf"Una cerca alrededor cuesta {_N} pesos por metro\.", _fence),
    (r"¿Cuál es su área en metros cuadrados\?|¿Cuántos metros cuadrados son\?", _area),
    (r"¿Cuál es su perímetro en metros\?|¿Cuántos metros mide todo el borde\?", _around),
    (rf"¿Cuánt[ao]s {_W} tiene ({_W})\?", _ask_of),
    (rf"¿Cuánt[ao]s {_W} tienen ({_W}) y ({_W}) en total\?", _ask_of),
    (rf"¿Cuánt[ao]s {_W} tienen ({_W}), ({_W}) y ({_W}) en total\?", _ask_of),
    (rf"¿Cuánt[ao]s {_W} (?:tiene {_W} ahora|le quedan a {_W} al final|hay ahora|hay en total al final)\?", _ask),
    (rf"¿Cuánt[ao]s {_W} recibe cada (?:niño|amigo)\?", _ask),
    (rf"¿Cuántos pesos (?:paga {_W}|le devuelven|le quedan|cuesta toda la cerca)\?", _ask),
    (r"¿Cuánto cuesta todo en pesos\?|¿Cuántos kilómetros (?:son|faltan)\?", _ask),
    (r"¿Cuál es la distancia en kilómetros\?", _ask),
)
