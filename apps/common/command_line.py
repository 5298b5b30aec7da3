"""The command line that the apps share: options, dotted overrides, exit codes.

`uv run apps/pretrain [--recipe NAME|FILE] [--any.dotted.key VALUE] [--out DIR] [--resume [DIR]] ...`. What is asked for
and cannot be done is a `BadRequest`; `main` prints it as one line and exits with 2.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from apps.common import overrides, strict_yaml
from apps.common.errors import BadRequest, TrainingFailed
from apps.common.overrides import Override
from tinycore.config import ConfigError

if TYPE_CHECKING:
    from apps.common.dial import Derived, Dial
    from apps.common.fit import Budget
    from apps.common.forecast import Asked
    from apps.common.recipe import Recipe

OURS = ("apps", "tinycore", "tinykernels", "tinydata", "tinyreason", "tinyeval")


@dataclass(frozen=True)
class Option:
    """One plain option. `value` is how its value is written in the help; None: a switch without one."""

    help: str
    value: str | None = None
    may_stand_alone: bool = False
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Arguments:
    """A command line taken apart: plain options, dotted overrides in order, and words."""

    options: dict[str, str | Literal[True]]
    overrides: tuple[Override, ...]
    words: tuple[str, ...]

    def path(self, name: str) -> Path | None:
        value = self.options.get(name)
        return Path(value) if isinstance(value, str) else None

    def text(self, name: str, default: str) -> str:
        value = self.options.get(name)
        return value if isinstance(value, str) else default

    def whole(self, name: str, default: int, least: int = 1) -> int:
        """The integer given to `--name`, at least `least`."""
        text = self.text(name, str(default))
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise BadRequest(f"--{name}: {text!r} is not a whole number of at least {least}")
        return number

    def number(self, name: str, default: float, least: float, most: float) -> float:
        """The number given to `--name`, between `least` and `most`."""
        text = self.text(name, str(default))
        try:
            number = float(text)
        except ValueError:
            number = float("nan")
        if not least <= number <= most:
            raise BadRequest(f"--{name}: {text!r} is not a number between {least:g} and {most:g}")
        return number


@dataclass(frozen=True)
class Grammar:
    """What an app takes. `keys()` lists the dotted keys it may be given (only called to mend a wrong option)."""

    options: Mapping[str, Option]
    dotted: bool = False
    words: str | None = None
    keys: Callable[[], Sequence[str]] = field(default=list)
    suggest: Callable[[str], str | None] = field(default=lambda word: None)


HELP = Option("print this help")
JSON = Option("last line of stdout is one JSON object, everything else goes to stderr")
DEVICE = Option("where to compute (default: the best there is)", "cpu|cuda|mps", choices=("cpu", "cuda", "mps"))

PRETRAIN_OPTIONS: dict[str, Option] = {
    "recipe": Option("recipe to start from (default: demo, or that of the run named by --init-from)", "NAME|FILE"),
    "size": Option("derive the recipe from a number of parameters, 0.2M to 1B, by the rules of docs/size.md", "10M"),
    "tokens": Option("train on so many tokens, instead of --train.steps", "200M"),
    "minutes": Option("train for so many minutes, by the speed measured at the start", "30"),
    "out": Option("run directory (default: runs/RECIPE)", "DIR"),
    "resume": Option("go on with the run in DIR (default: --out), exactly where it was saved", "DIR", True),
    "init-from": Option("start from the weights of another run: new data, new schedule", "DIR"),
    "device": DEVICE,
    "processes": Option("train with N processes on this machine (default: 1)", "N"),
    "memory": Option("take the largest micro-batch that fits so much memory, per process", "8GB|6GiB"),
    "dry-run": Option("print every derived value, the counts and the predicted memory, and stop"),
    "hardware": Option("with --dry-run: time and cost of the run on such devices", "NAME"),
    "price": Option("with --hardware: of one device for an hour", "P"),
    "mfu": Option("with --hardware: share of the device's FLOP/s that is reached, instead of an assumption", "0.3"),
    "profile": Option("record where the time of a few steps goes, into profile/ of the run"),
    "json": JSON,
    "allow-changes": Option("let a resumed run differ from the saved one in optimizer, data or schedule"),
    "list-recipes": Option("print the recipes there are"),
    "help": HELP,
}


@dataclass(frozen=True)
class Request:
    """A pretraining run as asked for. `resume` is True for `--resume` without a directory; `derived` are the values of the
    recipe that the options size and tokens gave, each with its rule; `minutes` is for the session to turn into steps."""

    recipe_mapping: dict[str, Any]
    recipe: Recipe
    recipe_name: str
    out: Path | None = None
    resume: Path | Literal[True] | None = None
    json: bool = False
    dry_run: bool = False
    device: str = "auto"
    processes: int = 1
    init_from: Path | None = None
    allow_changes: bool = False
    memory: Budget | None = None
    forecast: Asked | None = None
    overrides: tuple[Override, ...] = ()
    dial: Dial | None = None
    derived: tuple[Derived, ...] = ()
    minutes: float | None = None
    profile: bool = False


def take_apart(argv: Sequence[str], grammar: Grammar) -> Arguments:
    """Options, overrides and words of `argv`; `BadRequest` names what does not belong and the nearest that does."""
    options: dict[str, str | Literal[True]] = {}
    dotted: list[Override] = []
    words: list[str] = []
    rest = list(argv)
    while rest:
        argument = rest.pop(0)
        if argument == "-h":
            argument = "--help"
        if not argument.startswith("--") or argument == "--":
            if grammar.words is None or argument.startswith("-"):
                raise BadRequest(_stray(argument, grammar))
            words.append(argument)
            continue
        name, equals, value = argument[2:].partition("=")
        given = value if equals else None
        option = grammar.options.get(name)
        if option is None and not (grammar.dotted and "." in name):
            raise BadRequest(_unknown(name, grammar))
        if option is not None and option.value is None:
            if given is not None:
                raise BadRequest(f"--{name} is a switch and takes no value")
            options[name] = True
            continue
        if given is None and rest and not rest[0].startswith("--"):
            given = rest.pop(0)
        if given is None and not (option and option.may_stand_alone):
            raise BadRequest(f"--{name} needs a value: --{name} {option.value if option else 'VALUE'}")
        if option is None:
            dotted.append(overrides.read(name, given or ""))
        elif given is not None and option.choices and given not in option.choices:
            raise BadRequest(f"--{name}: {given!r} is not one of {', '.join(option.choices)}")
        else:
            options[name] = True if given is None else given
    return Arguments(options, tuple(dotted), tuple(words))


def _stray(argument: str, grammar: Grammar) -> str:
    better = grammar.suggest(argument)
    return f"unexpected {argument!r}; " + (f"did you mean {better}?" if better else "options are listed by --help")


def _unknown(name: str, grammar: Grammar) -> str:
    keys = list(grammar.keys()) if grammar.dotted else []
    dashed = name.replace("_", "-")
    same_leaf = [key for key in keys if key.rpartition(".")[2] == name.replace("-", "_")][:2]
    found = [dashed] if dashed in grammar.options else same_leaf
    found = found or difflib.get_close_matches(dashed, [*grammar.options, *keys], n=1)
    hint = f"did you mean {' or '.join(f'--{word}' for word in found)}?" if found else "options are listed by --help"
    return f"unknown option --{name}; {hint}"


def parse(
    app: str,
    argv: Sequence[str],
    default: str = "demo",
    base: Callable[[str | None], tuple[str, dict[str, Any]]] | None = None,
) -> Request:
    """The request that `argv` makes of `app`, whose recipe is `default` where none is named.

    base: name and mapping of the recipe that is asked for (None: of none), in place of the recipes that all apps share.
    Prints and leaves with 0 for `--help` and `--list-recipes`.
    """
    from apps.common import command_help, fit, forecast, horizon, recipes

    def keys() -> list[str]:
        try:
            known = recipes.load(default) if base is None else recipes.from_dict(base(None)[1])
        except ValueError:  # a default that does not fit is no reason to be silent about the word that is to be mended
            return []
        return [row.key for row in command_help.rows(known)]

    grammar = Grammar(
        PRETRAIN_OPTIONS,
        dotted=True,
        keys=keys,
        suggest=lambda word: f"--recipe {word}" if word in recipes.names() or word.endswith(".yaml") else None,
    )
    arguments = take_apart(argv, grammar)
    if "list-recipes" in arguments.options:
        command_help.print_recipes()
        raise SystemExit(0)
    resume = arguments.path("resume") or (True if "resume" in arguments.options else None)
    asked = horizon.read(arguments, resuming=resume is not None)
    if asked.dial is not None:
        name, (mapping, derived) = asked.dial.name, asked.dial.turn(asked.tokens)
    elif base is not None and resume is None:
        asked_for = arguments.options.get("recipe")
        (name, mapping), derived = base(asked_for if isinstance(asked_for, str) else None), ()
    else:
        (name, mapping), derived = _base(arguments, resume, default), ()
    if "help" in arguments.options:
        command_help.print_help(app, name, recipes.merge(mapping, arguments.overrides))
        raise SystemExit(0)
    if resume is not None and arguments.path("init-from") is not None:
        raise BadRequest("--resume goes on with a run and --init-from starts another; give one of them")
    mapping = recipes.merge(mapping, arguments.overrides)
    try:
        recipe = recipes.from_dict(mapping)
    except ConfigError as error:
        raise ConfigError(f"{error}{_elsewhere(str(error), arguments.overrides, keys)}") from None
    if asked.tokens is not None:
        recipe, more = horizon.with_tokens(recipe, asked.tokens, arguments.overrides)
        derived = horizon.updated(derived, more)
        mapping = recipes.merge(mapping, horizon.as_overrides(more))
    return Request(
        recipe_mapping=mapping,
        recipe=recipe,
        recipe_name=name,
        out=arguments.path("out"),
        resume=resume,
        json="json" in arguments.options,
        dry_run="dry-run" in arguments.options,
        device=arguments.text("device", "auto"),
        processes=arguments.whole("processes", 1),
        init_from=arguments.path("init-from"),
        allow_changes="allow-changes" in arguments.options,
        memory=fit.read(arguments),
        forecast=forecast.read(arguments),
        overrides=arguments.overrides,
        dial=asked.dial,
        derived=derived,
        minutes=asked.minutes,
        profile="profile" in arguments.options,
    )


def _elsewhere(message: str, given: Sequence[Override], keys: Callable[[], Sequence[str]]) -> str:
    """Where the key that `message` does not know does exist, if an option named it in the wrong place."""
    for override in given:
        leaf = override.path[-1]
        if f"unknown key '{leaf}'" in message:
            places = [f"--{key}" for key in keys() if key.rpartition(".")[2] == leaf]
            return f"; there is {' and '.join(places[:3])}" if places else ""
    return ""


def _base(arguments: Arguments, resume: Path | Literal[True] | None, default: str) -> tuple[str, dict[str, Any]]:
    """Name and mapping of the recipe that the overrides change: the one asked for, or else that of the run which is
    resumed or whose weights are the start, or the default."""
    from apps.common import recipes

    asked = arguments.options.get("recipe")
    if asked is None and resume is not None:
        run = resume if isinstance(resume, Path) else arguments.path("out") or Path("runs") / default
        directory = _run_with_recipe(run)
        if directory is None:
            raise BadRequest(f"{run}: nothing to resume, there is no recipe.yaml; a run directory looks like runs/NAME")
        return directory.name, strict_yaml.read(directory / "recipe.yaml")
    origin = arguments.path("init-from")
    if asked is None and origin is not None and (directory := _run_with_recipe(origin)) is not None:
        return f"{directory.name}-continued", strict_yaml.read(directory / "recipe.yaml")
    asked = str(asked) if asked is not None else default
    return (asked if asked in recipes.names() else Path(asked).stem), recipes.read(asked)


def _run_with_recipe(path: Path) -> Path | None:
    """The run that `path`, a run or a checkpoint of one, belongs to; None where there is no recipe.yaml."""
    # a checkpoint lies two folders below its run
    for directory in (path, *path.absolute().parents[:2]):
        if (directory / "recipe.yaml").is_file():
            return directory
    return None


def main(run: Callable[[], int]) -> NoReturn:
    """Run an app and leave with its exit code; what our own code refuses is one line on stderr and code 2."""
    try:
        code = run()
    except KeyboardInterrupt:
        _complain("interrupted")
        code = 1
    except BrokenPipeError:
        # whoever read our output has left (`| head`); Python must not complain once more when it closes stdout
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except ValueError as error:
        if not _is_refusal(error):
            traceback.print_exc()
            code = 1
        else:
            _complain(" ".join(str(error).split()))
            code = 2
    except TrainingFailed as error:
        _complain(" ".join(str(error).split()))
        code = error.status
    except Exception:
        traceback.print_exc()
        code = 1
    _leave(code)


def _leave(code: int) -> NoReturn:
    """End the process. One of several ends without the interpreter's teardown: gloo's threads may still be there then,
    and C++ aborts a process that has done its work (seen once in 23 runs of torchrun, as SIGABRT)."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _is_refusal(error: ValueError) -> bool:
    """Whether our own code raised it on purpose: a class of ours, or a ValueError from one of our own lines."""
    if type(error).__module__.partition(".")[0] in OURS:
        return True
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return type(error) is ValueError and frame is not None and _package(frame.tb_frame.f_globals) in OURS


def _package(names: Mapping[str, Any]) -> str:
    return str(names.get("__name__", "")).partition(".")[0]


def _complain(message: str) -> None:
    rank = os.environ.get("RANK", "0")
    sys.stderr.write(f"error: {message}\n" if rank == "0" else f"error: process {rank}: {message}\n")
