"""What tools ask people: forms that are filled in at a terminal, a line for each field, or answered by options."""

import json
import sys
from collections.abc import Generator, Mapping
from typing import Any

from portoser.catalog.question import Action, Answer, BadAnswer, Question, checked_answer
from portoser.cli.arguments import typed_arguments
from portoser.cli.exits import CommandError, Exit
from portoser.cli.output import clean

Filling = Generator[str, str | None, Answer]
"""Yields what to show, and is sent the line that is typed then, None where there are no more. Ends with the answer."""

_WORDS = {"decline": Answer(Action.DECLINE), "cancel": Answer(Action.CANCEL)}


def filled(question: Question) -> Filling:
    """Fill in a question's form. Ctrl-D declines it; what is only agreed to is declined by anything but yes."""
    message = one_line(question.message)
    fields: Mapping[str, Any] = question.schema["properties"]
    if not fields:
        line = yield f"{message} [y/N] "
        agreed = line is not None and line.strip().lower() in {"y", "yes"}
        return Answer(Action.ACCEPT, {}) if agreed else Answer(Action.DECLINE)
    shown = f"{message} (Ctrl-D declines)\n"
    content: dict[str, Any] = {}
    for name, field in fields.items():
        shown += _label(name, field)
        is_required = name in question.schema.get("required", ())
        while True:
            line = yield shown
            if line is None:
                return Answer(Action.DECLINE)
            try:
                content |= _value(name, field, line.strip(), is_required=is_required)
            except CommandError as error:
                shown = f"{clean(error)}\n{_label(name, field)}"
                continue
            break
        shown = ""
    return Answer(Action.ACCEPT, content)


def fill_in(question: Question) -> Answer:
    """Fill in a form at this terminal; questions go to standard error, which leaves the output to the answer."""
    filling = filled(question)
    shown = next(filling)
    while True:
        sys.stderr.write(shown)
        sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            sys.stderr.write("\n")
        try:
            shown = filling.send(line or None)
        except StopIteration as end:
            answer: Answer = end.value
            return answer


def given_answers(options: list[str]) -> dict[str, str]:
    """What ``--answer KEY=VALUE`` options say, by key.

    Raises:
        CommandError: one of them is none.
    """
    given = {}
    for option in options:
        key, equals, text = option.partition("=")
        if not equals or not key:
            raise CommandError(f"{option!r} is not an answer: write KEY=VALUE, or KEY='{{…}}'.", code=Exit.USAGE)
        given[key] = text
    return given


def answer_in(text: str, question: Question) -> Answer:
    """The answer that an option gives: a JSON object, the value of the only field, or ``decline`` or ``cancel``.

    Raises:
        CommandError: it does not fit the question.
    """
    if text in _WORDS:
        return _WORDS[text]
    fields = question.schema["properties"]
    if not fields and text.lower() in {"", "y", "yes", "true", "accept"}:
        return Answer(Action.ACCEPT, {})
    if len(fields) == 1 and not text.lstrip().startswith("{"):
        [(name, field)] = fields.items()
        content = _value(name, field, text, is_required=True)
    else:
        try:
            content = json.loads(text)
        except (json.JSONDecodeError, RecursionError):
            content = None
        if not isinstance(content, dict):
            told = f"write a JSON object of {', '.join(fields)}" if fields else "write yes"
            raise CommandError(f"{question.key}: {text!r} is no answer: {told}, or decline.", code=Exit.USAGE)
    try:
        return checked_answer(Answer(Action.ACCEPT, content), question.schema)
    except BadAnswer as error:
        raise CommandError(f"the answer to {question.key!r} does not fit: {error}", code=Exit.USAGE) from None


def one_line(text: str) -> str:
    """Text from elsewhere, as one line that steers no terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _value(name: str, field: Mapping[str, Any], text: str, *, is_required: bool) -> dict[str, Any]:
    """The field and its value, or nothing where it is left out."""
    form: dict[str, Any] = {"type": "object", "properties": {name: field}}
    if not text:
        if "default" in field:
            return {name: field["default"]}
        if is_required:
            raise CommandError("It is required.", code=Exit.USAGE)
        return {}
    if field.get("type") == "array" and not text.startswith("["):
        value: Any = [part.strip() for part in text.split(",") if part.strip()]
    elif field.get("type") == "string":
        value = text
    else:
        value = typed_arguments([f"{name}={text}"], form)[name]
    try:
        checked_answer(Answer(Action.ACCEPT, {name: value}), form)
    except BadAnswer as error:
        raise CommandError(str(error), code=Exit.USAGE) from None
    return {name: value}


def _label(name: str, field: Mapping[str, Any]) -> str:
    """What stands before the place where a field's value is typed."""
    text = name if not field.get("description") else f"{name}, {field['description']}"
    items = field.get("items", field)
    choices = items.get("enum") or [each["const"] for each in items.get("oneOf") or items.get("anyOf") or ()]
    if field.get("type") == "boolean":
        choices = ["yes", "no"]
    if choices:
        text += f" ({', '.join(choices)})"
    if "default" in field:
        text += f" [{json.dumps(field['default'], ensure_ascii=False).strip(chr(34))}]"
    return f"  {one_line(text)}: "
