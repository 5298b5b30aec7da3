"""Claim: every exercise is right in every form of its solution, held against a solver, exact arithmetic and an interpreter in
this file; a change of one digit or operator is noticed; exercises are the same bytes everywhere, distinct and as asked for.
"""

from __future__ import annotations

import ast
import hashlib
import itertools
import operator
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import pytest

from tinydata.synthetic.arithmetic_phrases import Language
from tinydata.synthetic.exercise import FORMS, Exercise, Form, Step
from tinydata.synthetic.exercises import KINDS, exercises

LANGUAGES: tuple[Language, ...] = ("english", "spanish")
COUNT = 1200

# When one of these changes, models that were trained on the old exercises are not comparable with those on the new ones.
GOLDEN: dict[str, tuple[dict[str, Any], str]] = {
    "as in apps/finetune/arithmetic.yaml": (
        {"seed": 0, "kinds": ("words", "multiplication")},
        "f25b39942a4be36f9c613f0ac406ac013274c6860eb95607bab0da7968ab1a92",
    ),
    "everything, in Spanish": (
        {
            "seed": 7,
            "kinds": ("expression", "words", "multiplication"),
            "language": "spanish",
            "steps": (2, 3),
            "digits": 5,
        },
        "237b896ca97a19ccef45a740f875f594141eef70f93ccb3491eeb74bbf2bf1e1",
    ),
}


def made(language: Language, count: int = COUNT, **settings: Any) -> list[Exercise]:
    """Exercises of every kind."""
    return list(exercises(settings.pop("seed", 21), count, KINDS, language, **settings))


@pytest.fixture(scope="module")
def both() -> dict[Language, list[Exercise]]:
    return {language: made(language) for language in LANGUAGES}


# --- a verifier that shares nothing with the generator: it reads texts ---------------------------------------------------

ARITHMETIC: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}
NUMBER = re.compile(r"0|[1-9]\d*")


class Wrong(AssertionError):
    """What is wrong with a solution."""


def demand(condition: object, what: str) -> None:
    if not condition:
        raise Wrong(what)


def whole(text: str) -> int:
    """The number that `text` is, written as numbers are."""
    demand(NUMBER.fullmatch(text), f"{text!r} is no number")
    return int(text)


def value_of(expression: str) -> Fraction:
    """The exact value of an expression of whole numbers, + - * / and brackets."""

    def walk(node: ast.expr) -> Fraction:
        match node:
            case ast.Constant(value=int(number)):
                return Fraction(number)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC and not isinstance(
                op, ast.FloorDiv
            ):
                try:
                    return ARITHMETIC[type(op)](walk(left), walk(right))
                except ZeroDivisionError:
                    raise Wrong(f"{expression} divides by zero") from None
        raise Wrong(f"{expression} is not arithmetic")

    return walk(parsed(expression).body)


def parsed(expression: str) -> ast.Expression:
    try:
        return ast.parse(expression, mode="eval")
    except SyntaxError:
        raise Wrong(f"{expression!r} cannot be read") from None


def printed(program: str, known: set[int]) -> list[int]:
    """What a program of `a = x op y` and `print(a)` prints; its literals have to be `known`, its divisions exact."""
    names: dict[str, int] = {}
    output: list[int] = []

    def operand(node: ast.expr) -> int:
        match node:
            case ast.Constant(value=int(number)):
                demand(number in known, f"{number} comes from nowhere")
                return number
            case ast.Name(id=name):
                demand(name in names, f"{name} is not defined")
                return names[name]
        raise Wrong("an operand is neither a number nor a name")

    try:
        statements = ast.parse(program).body
    except SyntaxError:
        raise Wrong("the program cannot be read") from None
    for statement in statements:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.BinOp(left=left, op=op, right=right)):
                first, second = operand(left), operand(right)
                if isinstance(op, ast.FloorDiv):
                    demand(second != 0 and first % second == 0, "a division leaves a rest")
                demand(type(op) in ARITHMETIC and not isinstance(op, ast.Div), "values are whole numbers")
                names[name] = ARITHMETIC[type(op)](first, second)
            case ast.Expr(value=ast.Call(func=ast.Name(id="print"), args=[ast.Name(id=name)], keywords=[])):
                demand(name in names, f"{name} is not defined")
                output.append(names[name])
            case _:
                raise Wrong(f"unexpected {ast.unparse(statement)}")
    return output


def told(kind: str, question: str) -> int:
    """The answer to a question of either language, read from its sentences."""
    if kind in ("expression", "multiplication"):
        expression = re.search(r"[\d(][\d +*/()-]*[\d)]", question)
        demand(expression, "there is no expression")
        assert expression is not None
        value = value_of(expression[0])
        demand(value.denominator == 1, f"{expression[0]} is no whole number")
        return int(value)
    numbers = [int(number) for number in re.findall(r"\d+", question)]
    last = re.split(r"(?<=[.?]) ", question)[-1]
    if kind in ("shopping", "travel"):
        pairs = [first * second for first, second in zip(numbers[::2], numbers[1::2], strict=False)]
        return numbers[-1] - sum(pairs) if len(numbers) % 2 else sum(pairs)
    if kind == "rectangle":
        long, wide, *further = numbers
        if not further:
            return long * wide if re.search(r"square|cuadrados", last) else long + wide + long + wide
        fence = (long + wide + long + wide) * further[0]
        return fence if len(further) == 1 else further[1] - fence
    if kind == "compare":
        first, times, *fewer = numbers
        second = first * times
        if not fewer:
            return first + second if re.search(r"together|en total", last) else second
        third = second - fewer[0]
        return first + second + third if "," in last else second + third
    demand(kind in ("change", "groups"), f"unknown kind {kind}")
    taken = 2 if kind == "groups" else 1
    total = numbers[0] * numbers[1] if kind == "groups" else numbers[0]
    seen = 0
    for sentence in re.split(r"(?<=[.?]) ", question):
        for number in re.findall(r"\d+", sentence):
            seen += 1
            if seen <= taken:
                continue
            if re.search(r"share|reparten", sentence):
                demand(total % int(number) == 0, "they cannot be shared equally")
                total //= int(number)
            else:
                total += int(number) if re.search(r"\b(more|más)\b", sentence) else -int(number)
    return total


ANSWER = {"english": r"Answer: (\d+)", "spanish": r"Respuesta: (\d+)"}
LINE = {
    "calculator": re.compile(r"(?:[^<>=]+: )?<calc>([^<>]*)</calc><result>([^<>]*)</result>"),
    "hand": re.compile(r"(?:[^<>=]+: )?([^<>= ]*)=(\d+)"),
}


def verify(exercise: Exercise, form: Form, solution: str) -> None:
    """Raise Wrong unless `solution` is a right one, in `form`, to the question of `exercise`."""
    expected = told(exercise.kind, exercise.question)
    known = {int(number) for number in re.findall(r"\d+", exercise.question)}
    if exercise.kind == "rectangle":
        known.add(2)  # around it is twice length plus width
    body, _, last = solution.rpartition("\n")
    answer = re.fullmatch(ANSWER[exercise.language], last)
    demand(answer, "there is no answer")
    assert answer is not None
    demand(whole(answer[1]) == expected, "the answer is another one")
    if form == "once":
        demand(not body, "there is more than an answer")
    elif form == "program":
        parts = re.fullmatch(r"<code>([^<>]*)</code><result>([^<>]*)</result>", body)
        demand(parts, "there is no program")
        assert parts is not None
        demand(printed(parts[1], known) == [whole(parts[2])] == [expected], "the program prints something else")
    else:
        thoughts = re.fullmatch(r"<think>(.*)</think>", body, re.DOTALL)
        demand(thoughts, "there are no thoughts")
        assert thoughts is not None
        value: int | None = None
        for line in thoughts[1].split("\n"):
            step = LINE[form].fullmatch(line)
            demand(step, f"{line!r} is no step")
            assert step is not None
            value = whole(step[2])
            demand(value_of(step[1]) == value, f"{step[1]} is not {value}")
            demand({int(number) for number in re.findall(r"\d+", step[1])} <= known, f"{step[1]} comes from nowhere")
            known.add(value)
        demand(value == expected, "the steps lead to another answer")


# --- what is generated is right ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("form", FORMS)
def test_every_solution_is_right(both: dict[Language, list[Exercise]], language: Language, form: Form) -> None:
    for exercise in both[language]:
        verify(exercise, form, exercise.solution(form))
    kinds = Counter(exercise.kind for exercise in both[language])
    assert kinds.keys() == {
        "expression",
        "multiplication",
        "change",
        "groups",
        "shopping",
        "compare",
        "travel",
        "rectangle",
    }
    assert min(kinds.values()) > 30, "none of the claims holds of nothing"


@pytest.mark.parametrize("language", LANGUAGES)
def test_forms_agree_with_the_values_of_the_exercise(both: dict[Language, list[Exercise]], language: Language) -> None:
    for exercise in both[language]:
        assert exercise.answer == str(told(exercise.kind, exercise.question))
        for form in ("hand", "calculator", "program"):
            text = exercise.solution(form)
            lines = text.split("</code>")[0].split("\n")[:-1] if form == "program" else text.split("\n")[:-1]
            assert len(lines) == len(exercise.steps)
        for step in exercise.steps:
            assert step.value == value_of(step.expression) >= 0
        assert exercise.thoughts() == exercise.thoughts("calculator")


@pytest.mark.parametrize(
    ("language", "asks", "question", "answer"),
    [
        ("english", ("At once:", "By hand:", "By calculator:", "By program:"), "Question", "Answer"),
        ("spanish", ("De una vez:", "A mano:", "Con calculadora:", "Con un programa:"), "Pregunta", "Respuesta"),
    ],
)
def test_a_prompt_is_the_question_and_how_to_answer(
    language: Language, asks: tuple[str, ...], question: str, answer: str
) -> None:
    exercise = Exercise("any", "How many?", (Step("Why", 12, "*", 7, 84), Step("", 84, "-", 4, 80)), language)
    assert [exercise.prompt(form) for form in FORMS] == [f"{question}: How many?\n{ask}\n" for ask in asks]
    assert FORMS == ("once", "hand", "calculator", "program")
    assert [exercise.solution(form) for form in FORMS] == [
        f"{answer}: 80",
        f"<think>Why: 12*7=84\n84-4=80</think>\n{answer}: 80",
        "<think>Why: <calc>12*7</calc><result>84</result>\n<calc>84-4</calc><result>80</result></think>\n"
        + f"{answer}: 80",
        f"<code>a = 12 * 7\nb = a - 4\nprint(b)</code><result>80</result>\n{answer}: 80",
    ]


def test_a_program_takes_earlier_values_by_name_and_divides_exactly() -> None:
    steps = (Step("", 6, "+", 6, 12), Step("", 12, "/", 4, 3), Step("", 40, "-", 3, 37), Step("", 12, "*", 37, 444))
    program = Exercise("any", "?", steps).program()
    assert program == "a = 6 + 6\nb = a // 4\nc = 40 - b\nd = a * c\nprint(d)"
    assert printed(program, {6, 4, 40}) == [444]


# --- what is changed is noticed ------------------------------------------------------------------------------------------

# where a digit or an operator means something: expressions, results, answers, programs; explanations are words
MEANT = re.compile(
    r"<calc>[^<]*</calc><result>[^<]*</result>|<code>.*?print|</code><result>[^<]*</result>"
    r"|(?:Answer|Respuesta): \d+|(?:(?<=: )|(?<=\n)|(?<=<think>))[^ :\n<>]*=\d+",
    re.DOTALL,
)


def corrupted(solution: str, chance: random.Random) -> str:
    """`solution` with one digit, or one operator, that means something replaced by another."""
    places = [
        (meant.start() + token.start(), token[0])
        for meant in MEANT.finditer(solution)
        for token in re.finditer(r"\d|//|(?<![<a-z])[-+*/](?![a-z])", meant[0])
    ]
    at, token = chance.choice(places)
    # a program divides with two strokes, an expression with one
    others = "0123456789" if token.isdigit() else ["+", "-", "*", "//" if "<code>" in solution else "/"]
    return solution[:at] + chance.choice([other for other in others if other != token]) + solution[at + len(token) :]


def test_a_corruption_touches_what_is_meant() -> None:
    exercise = Exercise("any", "?", (Step("Take 4 from 84", 84, "-", 4, 80), Step("", 80, "/", 2, 40)))
    for form, expected in (
        ("once", ["Answer: 4", "Answer: 40"]),
        ("hand", ["84-4=80", "80/2=40", "Answer: 40"]),
        ("calculator", ["<calc>84-4</calc><result>80</result>", "<calc>80/2</calc><result>40</result>", "Answer: 40"]),
        ("program", ["<code>a = 84 - 4\nb = a // 2\nprint", "</code><result>40</result>", "Answer: 40"]),
    ):
        found = [meant[0] for meant in MEANT.finditer(exercise.solution(form))]
        assert found == expected[-len(found) :]
        assert len(found) >= min(len(expected), 1)
        texts = {corrupted(exercise.solution(form), random.Random(seed)) for seed in range(400)}
        assert exercise.solution(form) not in texts
        assert all("Take 4 from 84" in text for text in texts if form in ("hand", "calculator"))
        if form != "once":
            assert any(f"84 {sign} 4" in text or f"84{sign}4" in text for text in texts for sign in "+*")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("form", FORMS)
def test_changed_solutions_are_rejected(both: dict[Language, list[Exercise]], language: Language, form: Form) -> None:
    chance = random.Random(f"{language} {form}")
    rejected, tried = 0, 0
    for exercise in both[language]:
        text = corrupted(exercise.solution(form), chance)
        assert len(text.split("\n")) == len(exercise.solution(form).split("\n"))
        tried += 1
        try:
            verify(exercise, form, text)
        except Wrong:
            rejected += 1
    assert tried >= 1000
    assert rejected / tried >= 0.99, f"{tried - rejected} of {tried} were taken for right"


# --- what was asked for --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_seed_is_one_sequence_of_distinct_problems(both: dict[Language, list[Exercise]], language: Language) -> None:
    long = both[language]
    assert made(language) == long
    assert made(language, 401) == long[:401]
    assert made(language, 0) == []
    assert len({exercise.question for exercise in long}) == COUNT
    other = {exercise.question for exercise in made(language, seed=22)}
    assert sum(exercise.question in other for exercise in long) < COUNT / 10
    assert all(exercise.language == language for exercise in long)


@pytest.mark.parametrize("kinds", [*itertools.permutations(KINDS, 2), KINDS, ("words",)])
def test_kinds_come_in_turn(kinds: tuple[str, ...]) -> None:
    found = [exercise.kind for exercise in exercises(3, 60, kinds)]
    for index, kind in enumerate(found):
        wanted = kinds[index % len(kinds)]
        assert kind == wanted if wanted != "words" else kind not in KINDS


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("steps", [(1, 1), (2, 3), (4, 4), (1, 4)])
def test_steps_are_within_what_was_asked(language: Language, steps: tuple[int, int]) -> None:
    found = made(language, 360, steps=steps)
    counts = Counter(len(exercise.steps) for exercise in found if exercise.kind != "multiplication")
    assert counts.keys() == set(range(steps[0], steps[1] + 1))
    assert min(counts.values()) > 20
    assert all(len(exercise.steps) == 1 for exercise in found if exercise.kind == "multiplication")
    for exercise in found:
        verify(exercise, "calculator", exercise.solution("calculator"))


@pytest.mark.parametrize("digits", range(1, 7))
def test_factors_have_so_many_digits(digits: int) -> None:
    found = list(exercises(5, 80, ("multiplication",), digits=digits))
    for exercise in found:
        (step,) = exercise.steps
        assert (step.operator, step.value) == ("*", step.left * step.right)
        assert len(str(step.left)) == len(str(step.right)) == digits
        assert re.findall(r"\d+", exercise.question) == [str(step.left), str(step.right)]
    if digits > 1:
        assert len({str(exercise.steps[0].left)[0] for exercise in found}) == 9, "all first digits occur"


def test_what_does_not_exist_is_refused_and_not_looked_for_forever() -> None:
    found: list[Exercise] = []
    with pytest.raises(ValueError, match=r"hardly more than \d+ different problems of kind 'multip") as refused:
        found.extend(exercises(0, 100_000, ("multiplication",), digits=1))
    assert "\n" not in str(refused.value)
    # a list keeps what it was given before the end
    pairs = {(exercise.steps[0].left, exercise.steps[0].right) for exercise in found}
    assert pairs == set(itertools.product(range(1, 10), repeat=2)), "all of them came before"
    assert len({exercise.question for exercise in found}) == len(found) == 81 * 5, "in each of five wordings"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kinds": ("words", "riddle")}, "unknown kind 'riddle', expected some of words, expression, multiplication"),
        ({"kinds": ()}, "expected some of words"),
        ({"language": "klingon"}, "unknown language 'klingon', expected one of english, spanish"),
        ({"steps": (0, 2)}, "steps 0 to 2 are not within 1 to 4"),
        ({"steps": (3, 2)}, "steps 3 to 2 are not within 1 to 4"),
        ({"steps": (1, 5)}, "steps 1 to 5 are not within 1 to 4"),
        ({"digits": 0}, "0 digits are not 1 to 6"),
        ({"digits": 7}, "7 digits are not 1 to 6"),
    ],
)
def test_what_cannot_be_is_one_line(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as refused:
        next(exercises(0, 1, **settings))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", GOLDEN)
def test_bytes_are_pinned(name: str) -> None:
    settings, expected = GOLDEN[name]
    digest = hashlib.sha256()
    for exercise in exercises(count=500, **settings):
        for form in FORMS:
            digest.update(f"{exercise.prompt(form)}\0{exercise.solution(form)}\0".encode())
    assert digest.hexdigest() == expected
