"""Turns a teacher's samples into triples (problem, trace, answer) that have been checked (process distillation: arXiv
2501.12948; votes: 2203.11171; programs: 2312.09241).

Each problem is asked n times. A sample goes through the checks in this order, and is counted under the first that it fails:

    nothing came / cut off      finish "error" / "length"
    too long / too short        its length in characters
    not Unicode                 lone surrogates
    special token               names of tokens that a trace may not hold, such as <|im_end|>
    repeats itself              fewer than half of its 4-word runs are different ones, or a line comes 4 times
    unbalanced tags             <calc> without </calc> and the like
    no answer                   `final_answer` finds none
    unreadable / wrong step     any calculation that it shows (`traces`)
    too many programs           more than `programs`, each of which costs up to `seconds`
    program failed / prints something else / not run
    wrong answer                the known answer is another one
    no majority                 without a known answer: fewer than `share` of all n samples, or fewer than 2, agree on it, or
                                another answer has as many
    duplicate                   the same trace, but for white space, was kept before
    enough                      `keep` traces of this problem were kept already

What is kept is only as sound as these checks: words between the calculations are not judged.

Answers go through a cache, so that a run that was killed asks nothing twice and then yields the same triples in the same order,
byte for byte, from a generator whose answers depend on prompt and seed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from tinydata.special_tokens import SPECIAL_TOKENS
from tinydata.teachers import traces
from tinydata.teachers.asking import Asking, Checker, CodeRunner, Generator, Problem, TeacherError
from tinydata.teachers.cache import MOST_CHARACTERS, AnswerCache, Answers, bounded
from tinydata.teachers.triples import Triple

TAGS = frozenset({"<think>", "</think>", "<calc>", "</calc>", "<code>", "</code>", "<result>", "</result>"})
_FORBIDDEN = tuple(token for token in SPECIAL_TOKENS if token not in TAGS)


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What is kept. longest, shortest: characters of a trace; share: of all samples that must agree where no answer is known;
    keep: traces of one problem; programs: of one trace; seconds, bytes: what a program may take."""

    longest: int = 4096
    shortest: int = 1
    share: float = 0.5
    keep: int = 4
    programs: int = 4
    seconds: float = 2.0
    bytes: int = 2**26

    def __post_init__(self) -> None:
        if not 1 <= self.shortest <= self.longest <= MOST_CHARACTERS:
            raise ValueError(f"teachers: lengths {self.shortest} to {self.longest} make no sense")
        if not 0 < self.share <= 1:
            raise ValueError(f"teachers: share {self.share} is not above 0 and at most 1")
        if self.keep < 1:
            raise ValueError(f"teachers: keep {self.keep} is below 1")


@dataclass
class Summary:
    """problems: all; solved: those of which something was kept; asked: those that the teacher was asked about in this run, the
    rest was in the cache; samples: all; kept; rejected: by reason."""

    problems: int = 0
    solved: int = 0
    asked: int = 0
    samples: int = 0
    kept: int = 0
    rejected: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Sample:
    """A sample that passed all checks that need no other one."""

    trace: str
    answer: str
    steps: int
    programs: int


class TeacherImport:
    """teacher: its name, part of what its answers are kept under. `summary` tells about the latest iteration.

    runner: without one, traces with programs are rejected. extract: finds a trace's answer. batch: problems asked at once.
    """

    def __init__(
        self,
        generator: Generator,
        checker: Checker,
        *,
        teacher: str,
        cache: str | os.PathLike[str],
        asking: Asking | None = None,
        rules: Rules | None = None,
        runner: CodeRunner | None = None,
        extract: Callable[[str], str | None] = traces.final_answer,
        batch: int = 16,
    ) -> None:
        """Raises ValueError for a batch below one."""
        if batch < 1:
            raise ValueError(f"teachers: batch {batch} is below 1")
        self.teacher, self.cache = teacher, Path(cache)
        self.asking, self.rules = asking or Asking(), rules or Rules()
        self.summary = Summary()
        self._generator, self._checker, self._runner, self._extract = generator, checker, runner, extract
        self._batch = batch

    def triples(self, problems: Iterable[Problem]) -> Iterator[Triple]:
        """The triples in the order of the problems. Raises TeacherError, see `AnswerCache`, and for a teacher that answers
        another number of times than it was asked."""
        self.summary = Summary()
        kept: set[bytes] = set()
        stream = iter(problems)
        with AnswerCache(self.cache) as cache:
            while batch := list(islice(stream, self._batch)):
                failed = self._ask(batch, cache)
                for problem in batch:
                    key = self.asking.key(self.teacher, problem)
                    answers = failed[key] if key in failed else cache.get(key)
                    yield from self._judged(problem, answers, kept)

    def _ask(self, batch: Sequence[Problem], cache: AnswerCache) -> dict[str, Answers]:
        """Asks what is not known yet. What came with an error is not kept, so that it is asked again another time."""
        missing: dict[str, Problem] = {}
        for problem in batch:
            key = self.asking.key(self.teacher, problem)
            if key not in cache:
                missing.setdefault(key, problem)
        if not missing:
            return {}
        asking = self.asking
        found = self._generator.generate(
            [asking.asked(problem) for problem in missing.values()],
            n=asking.n,
            max_tokens=asking.max_tokens,
            temperature=asking.temperature,
            stop=list(asking.stop),
            seed=asking.seed,
        )
        if len(found) != len(missing) or any(len(samples) != asking.n for samples in found):
            raise TeacherError(
                f"teacher {self.teacher}: answered another number of times than {asking.n} for each problem"
            )
        cut = {
            key: tuple(bounded(one.text, one.finish) for one in samples)
            for key, samples in zip(missing, found, strict=True)
        }
        self.summary.asked += len(missing)
        failed = {key: samples for key, samples in cut.items() if any(finish == "error" for _, finish in samples)}
        cache.add({key: samples for key, samples in cut.items() if key not in failed})
        return failed

    def _judged(self, problem: Problem, answers: Answers, kept: set[bytes]) -> Iterator[Triple]:
        summary = self.summary
        summary.problems += 1
        summary.samples += len(answers)
        sound: list[_Sample] = []
        for text, finish in answers:
            checked = self._checked(text, finish)
            if isinstance(checked, str):
                self._reject(checked)
            else:
                sound.append(checked)
        votes = self._votes(sound)
        solved = 0
        for index, sample in enumerate(sound):
            reason = self._outvoted(problem, sample, index, votes, len(answers))
            digest = hashlib.blake2b(
                " ".join(f"{problem.question}\n{sample.trace}".split()).encode(), digest_size=16
            ).digest()
            if reason is None and digest in kept:
                reason = "duplicate"
            if reason is None and solved >= self.rules.keep:
                reason = "enough"
            if reason is not None:
                self._reject(reason)
                continue
            kept.add(digest)
            solved += 1
            summary.kept += 1
            answer = sample.answer if problem.answer is None else problem.answer
            yield Triple(
                problem.question,
                sample.trace,
                answer,
                self.teacher,
                sample.steps,
                sample.programs,
                votes[index],
                len(answers),
            )
        summary.solved += solved > 0

    def _reject(self, reason: str) -> None:
        self.summary.rejected[reason] = self.summary.rejected.get(reason, 0) + 1

    def _checked(self, text: str, finish: str) -> _Sample | str:
        """The sample, or why it cannot be used whatever the others say."""
        if finish in ("error", "length"):
            return "nothing came" if finish == "error" else "cut off"
        if finish == "long" or len(text) > self.rules.longest:
            return "too long"
        trace = text.strip()
        if len(trace) < self.rules.shortest:
            return "too short"
        if any("\ud800" <= character <= "\udfff" for character in trace):
            return "not Unicode"
        if any(token in trace for token in _FORBIDDEN):
            return "special token"
        if _repeats(trace):
            return "repeats itself"
        if traces.unbalanced(trace):
            return "unbalanced tags"
        answer = self._extract(trace)
        if answer is None:
            return "no answer"
        verdicts = list(traces.steps(trace))
        if "unreadable" in verdicts or "wrong" in verdicts:
            return "wrong step" if "wrong" in verdicts else "unreadable step"
        programs = traces.programs(trace)
        reason = self._ran(programs, answer)
        return reason or _Sample(trace, answer, len(verdicts), len(programs))

    def _ran(self, programs: Sequence[traces.Program], answer: str) -> str | None:
        """Why a program speaks against the trace: each prints what is said behind it, the last one the answer."""
        if programs and self._runner is None:
            return "program not run"
        if len(programs) > self.rules.programs:
            return "too many programs"
        for index, program in enumerate(programs):
            assert self._runner is not None
            result = self._runner.run(program.source, self.rules.seconds, self.rules.bytes)
            if result.error is not None:
                return "program failed"
            printed = result.output.strip()
            last = index == len(programs) - 1
            if program.printed is not None and not self._same(printed, program.printed.strip()):
                return "program prints something else"
            if last and not self._same(printed.rpartition("\n")[2], answer):
                return "program prints something else"
        return None

    def _same(self, a: str, b: str) -> bool:
        return a == b or self._checker.equal(a, b)

    def _votes(self, samples: Sequence[_Sample]) -> list[int]:
        """For each, how many have its answer. The checker compares with the first of each answer, in order."""
        firsts: list[str] = []
        classes = []
        for sample in samples:
            found = next((index for index, first in enumerate(firsts) if self._same(first, sample.answer)), None)
            if found is None:
                firsts.append(sample.answer)
                found = len(firsts) - 1
            classes.append(found)
        return [classes.count(found) for found in classes]

    def _outvoted(
        self, problem: Problem, sample: _Sample, index: int, votes: Sequence[int], samples: int
    ) -> str | None:
        if problem.answer is not None:
            return None if self._same(sample.answer, problem.answer) else "wrong answer"
        count = votes[index]
        tied = sum(other == count for other in votes) > count
        if count < 2 or tied or count != max(votes) or count < self.rules.share * samples:
            return "no majority"
        return None


def _repeats(text: str) -> bool:
    """Whether a text turns in circles, as models at their wits' end do."""
    written = [line.strip() for line in text.split("\n") if len(line.strip()) > 8]
    if written and max(map(written.count, set(written))) > 3:
        return True
    words = text.split()
    runs = [tuple(words[at : at + 4]) for at in range(len(words) - 3)]
    return len(runs) >= 20 and len(set(runs)) < len(runs) / 2
