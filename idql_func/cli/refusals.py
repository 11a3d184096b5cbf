"""What the option parser refuses, as one sentence instead of its box of several lines.

tyro calls a hook with a description of each refusal. The hook is a private part of tyro, which only
this module uses: where it is missing or has changed, the sentence is the text of tyro's own box.
"""

from __future__ import annotations

import difflib
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stderr, redirect_stdout
from functools import cached_property
from typing import Any, TypeVar

from idql_func.cli import ALLOW_ENV_IMPORTS
from idql_func.errors import InputError

__all__ = ["parse_or_refuse"]

T = TypeVar("T")

_LONGEST = 60  # characters of a word in a sentence
_MOST_SIMILAR = 3  # names that are suggested
_SIMILARITY = 0.7  # of names, as difflib counts it
_SIMILARITY_OF_WHOLE = 0.85  # groups have long names, and one group many options
_HELP_WIDTH = "120"  # columns: no name is broken, and no box stands beside another
_ANOTHER_TYRO = (IndexError, AttributeError, TypeError, ValueError)
"""What a sentence raises where tyro has no hook, or another one."""
_ONE = {"INT": "an integer", "FLOAT": "a number", "PATH": "a path", "STR": "a text"}
_SEVERAL = {"INT": "integers", "FLOAT": "numbers", "PATH": "paths", "STR": "texts"}


def parse_or_refuse(
    parse: Callable[[list[str]], T],
    prog: str,
    arguments: Sequence[str],
    commands: Sequence[str] = (),
) -> T:
    """Call a parser of tyro; what it refuses becomes an error of one sentence.

    Args:
        parse: parses arguments with tyro.
        prog: how the command is called, such as ``"idql train [PRESET]"``.
        arguments: what follows the command's name.
        commands: the command's own commands, if it has some.

    Raises:
        InputError: an option is unknown, or a value is missing or invalid.
        SystemExit: help was requested (0).

    Example:
        >>> import tyro
        >>> def main(seed: int) -> None: ...
        >>> parse_or_refuse(lambda words: tyro.cli(main, args=words), "go", ["--seed", "x"])
        Traceback (most recent call last):
        idql_func.errors.InputError: --seed must be an integer, got 'x'; `go --help` describes it
    """
    words, events, errors = list(arguments), [], io.StringIO()
    try:
        with redirect_stderr(errors), _hook(events.append):
            parsed = parse(words)
    except SystemExit as stop:
        if not stop.code:
            raise
    else:
        sys.stderr.write(errors.getvalue())  # warnings
        return parsed
    refusal = _Refusal(parse, prog, words, commands)
    try:
        sentence = refusal.sentence(events[0])
    except _ANOTHER_TYRO:
        sentence = refusal.unknown_option() or _text_of_box(errors.getvalue())
    raise InputError(f"{sentence}; {refusal.help} {refusal.tells}")


def _hook(call: Callable[[Any], None]) -> AbstractContextManager[Any]:
    """Let tyro call a function with a description of what it refuses, if it can."""
    try:
        from tyro import _errors  # type: ignore[attr-defined]

        return _errors.on_parse_error(call)
    except (ImportError, AttributeError, TypeError):
        return nullcontext()


class _Refusal:
    """The words of a command line that was refused, and the sentences about them.

    ``tells`` is what the help tells about the refused word.
    """

    tells = "describes it"

    def __init__(
        self,
        parse: Callable[[list[str]], Any],
        prog: str,
        words: Sequence[str],
        commands: Sequence[str],
    ) -> None:
        own = [word for word in words[:1] if word in commands]
        self.parse, self.words, self.commands, self.before = parse, words, commands, own
        self.line, _, self.placeholder = prog.partition(" [")
        self.help = f"`{' '.join([self.line, *own, '--help'])}`"

    def sentence(self, event: Any) -> str:
        """What was wrong, by tyro's description of it."""
        kind = type(event).__name__
        if kind == "BadValue" and not event.argument.is_positional():
            return self._missing_value(event.argument)
        if (unknown := self.unknown_option()) is not None:
            return unknown
        if kind == "InvalidChoice":
            return self._invalid(event.argument, _either([*map(repr, event.choices)]), event.value)
        if kind == "InstantiationFailure":
            return self._invalid_value(event.argument, str(event.message))
        if kind == "MissingArgs":
            missing = [_called(part.arg) for part in event.missing_arguments]
            return f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
        if kind == "UnrecognizedArgs":
            return self._stray_word(event.tokens[0])
        if kind == "MissingSubcommand":
            return f"a command must follow `{self.line}`: {_either(self.commands)}"
        raise TypeError(f"not a known refusal: {kind}")

    def unknown_option(self) -> str | None:
        """The sentence about the first option that does not exist; None if all exist."""
        end = self.words.index("--") if "--" in self.words else len(self.words)
        for word in self.words[:end]:
            name = word.partition("=")[0]
            if _is_option(word) and _plain(name) not in self._names:
                return self._unknown(name)
        return None

    def _unknown(self, name: str) -> str:
        self.tells = "lists all"
        placeholder = name.strip("-").upper()
        if len(placeholder) > 1 and placeholder in self._placeholders:
            return f"no option is called {_shown(name)}, {placeholder} is given without a name"
        similar = self._similar(_plain(name))
        advice = f" (did you mean {_either(similar[:_MOST_SIMILAR])}?)" if similar else ""
        return f"no option is called {_shown(name)}{advice}"

    def _similar(self, name: str) -> list[str]:
        """Options with a similar name as a whole, then those with a similar one in their group."""
        group, _, own = name.lstrip("-").rpartition(".")
        names = [n for n in self._names if n not in ("-h", "--help")]
        owns = {n: n.lstrip("-").rpartition(".")[2] for n in names}
        close = difflib.get_close_matches(own, [*dict.fromkeys(owns.values())], cutoff=_SIMILARITY)
        found = [n for one in close for n in names if owns[n] == one]
        found.sort(key=lambda n: n.lstrip("-").rpartition(".")[0] != group)
        whole = difflib.get_close_matches(name, names, cutoff=_SIMILARITY_OF_WHOLE)
        return [*dict.fromkeys([*whole, *found])]

    def _missing_value(self, argument: Any) -> str:
        name, values = self._given(argument)
        count = argument.lowered.nargs
        needs = "a value" if count in (None, 1) else f"{count} values"
        sentence = f"{name} needs {needs}: {_kind(str(argument.lowered.metavar))}"
        following = self.words[self._place(argument) + 1 + len(values) :][:1]
        if following and _is_option(following[0]) and _plain(following[0]) not in self._names:
            sentence += f"; one that begins with '-' is given as {name}={_shown(following[0])}"
        return sentence

    def _invalid_value(self, argument: Any, message: str) -> str:
        if argument is None:
            return _one_line(message)
        kind = _kind(str(argument.lowered.metavar))
        name, values = self._given(argument)
        if not values or kind in (_ONE["PATH"], _ONE["STR"]):
            return f"{name}: {_one_line(message)}"
        return self._invalid(argument, kind, " ".join(values))

    def _invalid(self, argument: Any, kind: str, value: str) -> str:
        return f"{self._given(argument)[0]} must be {kind}, got {_shown(value, quoted=True)}"

    def _stray_word(self, word: str) -> str:
        shown = _shown(word, quoted=True)
        if word in self.words[:1] and self.commands:
            self.tells = "describes them"
            known = " and ".join(self.commands)
            return f"no command of `{self.line}` is called {shown}, there are {known}"
        for given in self.words:
            name, equals, value = given.partition("=")
            if equals and value == word and _plain(name) in self._names:
                return f"{_shown(name)} is a switch without a value, got {shown}"
        if _is_option(word):  # the switch of all commands
            return f"{word.partition('=')[0]} is a switch without a value"
        self.tells = "shows what may be given"
        sentence = f"{shown} is one word too many: no option takes it"
        if self.placeholder and self.words[0] != word:
            first = self.placeholder.rstrip("]").replace("|", " or ")
            sentence += f", and {first} comes before all options"
        return sentence

    def _place(self, argument: Any) -> int:
        """Where the words have the option for the last time: that one counts."""
        names = {*map(_plain, argument.lowered.name_or_flags)}
        return max(i for i, w in enumerate(self.words) if _plain(w.partition("=")[0]) in names)

    def _given(self, argument: Any) -> tuple[str, list[str]]:
        """The name of an argument as it was typed, and the values that follow it."""
        if argument.is_positional():
            return str(argument.lowered.metavar), []
        place = self._place(argument)
        name, equals, value = self.words[place].partition("=")
        values = [value] if equals else []
        for word in self.words[place + 1 :]:
            if _is_option(word) or (len(values) == 1 and argument.lowered.nargs == 1):
                break
            values.append(word)
        return _shown(name), values

    @cached_property
    def _help_text(self) -> str:
        out, width = io.StringIO(), os.environ.get("COLUMNS")
        os.environ["COLUMNS"] = _HELP_WIDTH
        try:
            with redirect_stdout(out):
                self.parse([*self.before, "--help"])
        except SystemExit:
            pass
        finally:
            if width is None:
                del os.environ["COLUMNS"]
            else:
                os.environ["COLUMNS"] = width
        return out.getvalue()

    @cached_property
    def _names(self) -> list[str]:
        found = re.findall(r"(?<![\w-])--[A-Za-z][\w.-]*\b|(?<![\w-])-h\b", self._help_text)
        return [*dict.fromkeys([*map(_plain, found), ALLOW_ENV_IMPORTS])]

    @cached_property
    def _placeholders(self) -> set[str]:
        usage = self._help_text.partition("\n\n")[0]
        return {*re.findall(r"\b[A-Z]{3,}\b", usage)} - {"OPTIONS"}


def _is_option(word: str) -> bool:
    """Whether the parser takes a word for the name of an option: not ``-1``, ``-inf`` or ``-``."""
    return re.match(r"--.|-(?!(inf|infinity|nan)$)[A-Za-z]", word, re.IGNORECASE) is not None


def _plain(name: str) -> str:
    return name.replace("_", "-")


def _called(argument: Any) -> str:
    """An argument as the usage shows it."""
    metavar = str(argument.lowered.metavar)
    return (
        metavar if argument.is_positional() else f"{argument.lowered.name_or_flags[-1]} {metavar}"
    )


def _kind(metavar: str) -> str:
    """What a value is, by the parser's short form of its type.

    >>> _kind("{None}|INT"), _kind("{None}|{[INT [INT ...]]}"), _kind("{vp,cosine}")
    ('an integer or None', 'integers (one or more, or None)', "'vp' or 'cosine'")
    """
    if metavar.startswith("{None}|"):
        kind = _kind(metavar.removeprefix("{None}|").removeprefix("{").replace("]}", "]"))
        return kind.replace(")", ", or None)") if kind.endswith(")") else f"{kind} or None"
    if several := re.fullmatch(r"\[(\w+) \[\1 \.\.\.\]\]", metavar):
        return f"{_SEVERAL.get(several[1], several[1])} (one or more)"
    if choices := re.fullmatch(r"\{([^{}]+)\}", metavar):
        return _either([*map(repr, choices[1].split(","))])
    return _ONE.get(metavar, metavar)


def _either(names: Sequence[str]) -> str:
    return " or ".join([*filter(None, [", ".join(names[:-1])]), *names[-1:]])


def _shown(word: str, quoted: bool = False) -> str:
    """A word of the command line, shortened; in quotes, or where it has characters of control."""
    text = word if len(word) <= _LONGEST else f"{word[:_LONGEST]}..."
    return repr(text) if quoted or not text.isprintable() or not text.strip() else text


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _text_of_box(text: str) -> str:
    """What the parser's box says, without its title and what follows the first line across.

    >>> _text_of_box("╭─ Error ─╮\\n│ 'x' is  │\\n│ no name │\\n│ ─────── │\\n│ see ... │")
    "'x' is no name"
    """
    parts: list[list[str]] = [[]]
    for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines():
        if re.fullmatch(r"[\s│|╭╰╮╯+]*[─-]{3,}[\s│|╮╯+]*|\s*[╭+][─-].*", line):
            parts.append([])
        else:
            parts[-1].append(re.sub(r"^\s*[│|]|[│|]\s*$", "", line))
    said = [_one_line(" ".join(part)) for part in parts[1:]]
    sentence = next(filter(None, said), "the options are not valid")
    return sentence.partition(" Got errors:")[0].rstrip(".")
