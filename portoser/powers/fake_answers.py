"""What stands in for the caller's user while an example runs."""

from typing import Any

from portoser.catalog.errors import PowerError
from portoser.catalog.question import Action, Answer, BadAnswer, BadQuestion, Question, checked_answer, question_of

FORM = "ctx: {elicit: [L, {text: hello}, decline]}"


class FakeAnswers:
    """``given: {ctx: {elicit: [L, {text: hello}, decline]}}`` answers the questions in the order in which they are
    asked; ``{ctx: {elicit: {size: L}}}`` answers them by their keys.

    An answer is a filled-in form, the value of its only field, or ``decline`` or ``cancel``; ``true`` agrees to a
    question without fields.
    """

    def __init__(self, given: Any) -> None:
        elicit = given.get("elicit") if isinstance(given, dict) else None
        if isinstance(elicit, list):
            elicit = {f"{number}": answer for number, answer in enumerate(elicit, 1)}
            self._in_order = True
        else:
            self._in_order = False
        self._given: dict[str, Any] = elicit if isinstance(elicit, dict) else {}
        self._asked = 0

    def call(self, method: str, args: list[Any]) -> dict[str, Any]:
        """The answer that the example gives to a question.

        Raises:
            PowerError: it gives none, or one that does not fit the question.
        """
        if method != "elicit":
            raise PowerError(f"ctx.{method[:64]}() does not exist.")
        message, schema, key = [*args, None, None, None][:3]
        self._asked += 1
        number = f"{self._asked}"
        try:
            question = question_of(message, schema, number if key is None else f"{key}")
            answer = self._answer(number if self._in_order else question.key, question)
        except (BadQuestion, BadAnswer) as error:
            raise PowerError(str(error)) from None
        return {"action": answer.action.value, "content": answer.content}

    def _answer(self, key: str, question: Question) -> Answer:
        if key not in self._given:
            shown = question.message[:80]
            raise PowerError(f"The example gives no answer to the question {shown!r}: write given: {{{FORM}}}.")
        given = self._given[key]
        if given in ("decline", "cancel"):
            return Answer(Action(given))
        fields = question.schema["properties"]
        content = given
        if not isinstance(given, dict):
            content = {next(iter(fields)): given} if len(fields) == 1 else {}
        try:
            return checked_answer(Answer(Action.ACCEPT, content), question.schema)
        except BadAnswer as error:
            raise BadAnswer(f"The example's answer to {question.message[:80]!r} does not fit: {error}") from None
