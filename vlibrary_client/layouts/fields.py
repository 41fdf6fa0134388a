"""From the fields of a record to questions, answers and names. One rule for every format."""

import math
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from vlibrary_client.errors import InvalidDatasetError
from vlibrary_client.layouts.conversations import (
    CONVERSATIONS,
    EXCHANGES,
    PLACEHOLDER,
    read_turns,
    shown_text,
)
from vlibrary_client.layouts.items import (
    BadItem,
    ColumnMap,
    Constant,
    Found,
    Item,
    Record,
    UnusableError,
    mapped,
)
from vlibrary_client.layouts.pictures import PICTURE_COLUMNS, Pictures, is_file
from vlibrary_client.layouts.values import CHOICE_COLUMN, CHOICES_COLUMNS, chosen, listing

MAX_QUESTION_CHARACTERS = 4000
MAX_ANSWER_CHARACTERS = 1000
MAX_ANSWERS = 64
MAX_NAME_CHARACTERS = 200
ANSWER_COLUMNS = ("answers", "answer", "multiple_choice_answer")
# Of rows that were packed from another source.
PLACE_COLUMN = "_place"
PROBLEM_COLUMN = "_problem"
_ID_COLUMNS = ("id", "question_id")
# What else the one who answered had before them, and no prompt here can show.
_UNSEEN_COLUMNS = ("tools", "functions", "video", "videos", "audio", "audios")
# What else would say the same as a column that is named, which then says it alone.
_INSTEAD = {
    "question": ("question", *CONVERSATIONS),
    **dict.fromkeys(("answer", "answers"), (*ANSWER_COLUMNS, CHOICE_COLUMN)),
    "image": PICTURE_COLUMNS,
    "id": _ID_COLUMNS,
}
_NOTHING = frozenset({"", "[]", "{}", "null"})
USED_COLUMNS = frozenset(
    (
        *(*PICTURE_COLUMNS, *CONVERSATIONS, *ANSWER_COLUMNS, *_ID_COLUMNS, *_UNSEEN_COLUMNS),
        *(*CHOICES_COLUMNS, CHOICE_COLUMN, PLACE_COLUMN, PROBLEM_COLUMN),
        *("question", "system", "image_id", "split"),
    )
)


def _missing(names: Sequence[str], columns: ColumnMap) -> str | None:
    """Why records with these columns can be no items, if they cannot."""
    missing = sorted(mapped(columns) - set(names))
    present = (set(names) - mapped(columns)) | set(columns)
    own = next((name for name in ("question", *CONVERSATIONS) if name in names), None)
    if own is not None and _is_asked_of_all(columns):
        return _asks_itself(own)
    if missing:
        return f"there is no column {', '.join(missing)}"
    is_answered = "question" in present and {*ANSWER_COLUMNS, CHOICE_COLUMN} & present
    if is_answered or set(CONVERSATIONS) & present:
        return None
    return (
        "wanted a question with an answer or answers, conversations, or messages; a map such "
        "as question=COLUMN tells which column is which"
    )


def _is_asked_of_all(columns: ColumnMap) -> bool:
    return isinstance(columns.get("question"), Constant)


def _asks_itself(name: str) -> str:
    return f"it has questions of its own in {name}, so none is given for all"


def wanted_columns(names: Sequence[str], columns: ColumnMap) -> list[str]:
    """The columns of a table that say something.

    Raises:
        InvalidDatasetError: Records with these columns can be no items, a mapped one is missing, or
            one is there twice.
    """
    if problem := _missing(names, columns):
        raise InvalidDatasetError(f"{problem}; found the columns {some_of(names)}")
    wanted = [name for name in names if name in USED_COLUMNS or name in mapped(columns)]
    twice = sorted({name for name in wanted if wanted.count(name) > 1})
    if twice:
        raise InvalidDatasetError(f"the column {', '.join(twice)} occurs twice")
    return wanted


def some_of(names: Sequence[str], most: int = 20) -> str:
    """The first names, and how many more there are."""
    shown = ", ".join(str(name)[:40] for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "") or "none"


def read_items(
    record: Record, *, columns: ColumnMap, pictures: Pictures, split: str | None
) -> Iterator[Found]:
    """The items of a record, one or one a question; of this split if nothing names another."""
    taken = {
        name: column if isinstance(column, Constant) else record.fields.get(column)
        for name, column in columns.items()
    }
    replaced = mapped(columns).union(*(_INSTEAD.get(name, (name,)) for name in columns))
    fields = {name: value for name, value in record.fields.items() if name not in replaced}
    fields |= {name: value for name, value in taken.items() if value is not None}
    place = str(fields.get(PLACE_COLUMN) or record.place)
    if problem := record.problem or fields.get(PROBLEM_COLUMN):
        yield BadItem(place=place, reason=str(problem))
        return
    try:
        _require_read(record.fields, columns)
        yield from _items(fields, place=place, split=record.split or split, pictures=pictures)
    except UnusableError as error:
        yield BadItem(place=place, reason=str(error))


def _require_read(fields: Mapping[str, Any], columns: ColumnMap) -> None:
    """Refuses a record of which something would be left out that nobody chose to leave out."""
    if _is_asked_of_all(columns):
        for name in ("question", *CONVERSATIONS):
            if _says(fields.get(name)):
                raise UnusableError(_asks_itself(name))
    if "image" not in columns:
        rest = fields.keys() - USED_COLUMNS - mapped(columns)
        if pictures := [name for name in fields if name in rest and is_file(fields[name])]:
            raise UnusableError(unread_pictures(pictures))


def unread_pictures(names: Sequence[str]) -> str:
    """What to do about columns with pictures that no rule reads."""
    return (
        f"pictures in the column {some_of(names)} would not be read; a map such as image=COLUMN "
        "tells which column is meant"
    )


def _items(
    fields: Mapping[str, Any], *, place: str, split: str | None, pictures: Pictures
) -> list[Item]:
    unseen = next((column for column in _UNSEEN_COLUMNS if _says(fields.get(column))), None)
    if unseen is not None:
        raise UnusableError(f"it has {unseen}, which prompts cannot show")
    name = next((name for name in CONVERSATIONS if _says(fields.get(name))), None)
    if name is None or (name == EXCHANGES and _says(fields.get("question"))):
        name, question, is_shown = "question", _question(fields), False
        if PLACEHOLDER in question:
            question, is_shown = shown_text(question, name=name)
        asked = [(question, _answers(fields))]
        inline: list[Any] = []
    else:
        if fields.get("system"):
            raise UnusableError(
                f"it has a system text beside its {name}; leave it out and train with it as the "
                "instruction"
            )
        if _says(fields.get("question")) and any(_says(fields.get(c)) for c in ANSWER_COLUMNS):
            raise UnusableError(
                f"it has a question with an answer beside its {name}: a map such as "
                "question=question takes the question"
            )
        exchanges, inline, is_shown = read_turns(listing(fields[name], name), name=name)
        asked = [(question, (answer,)) for question, answer in exchanges]
    image, image_name = pictures.read(fields, inline=inline)
    if is_shown and image is None:
        raise UnusableError(f"its {name} shows a picture that is not there")
    image_id = _name(fields, "image_id")
    item_id = next(filter(None, (_name(fields, column) for column in _ID_COLUMNS)), None)
    own_split = _name(fields, "split")
    return [
        Item(
            place=place if len(asked) == 1 else f"{place}, question {number}",
            question=_checked(question, "question", most=MAX_QUESTION_CHARACTERS),
            answers=tuple(
                _checked(answer, "answer", most=MAX_ANSWER_CHARACTERS) for answer in answers
            ),
            image=image,
            image_name=image_name,
            id=item_id if item_id is None or len(asked) == 1 else f"{item_id}-{number}",
            image_id=image_id,
            split=own_split or split,
        )
        for number, (question, answers) in enumerate(asked, start=1)
    ]


def _says(value: object) -> bool:
    return value.strip() not in _NOTHING if isinstance(value, str) else bool(value)


def _question(fields: Mapping[str, Any]) -> str:
    question = fields.get("question")
    if isinstance(question, str):
        return question
    if question is None and not any(fields.get(column) for column in ANSWER_COLUMNS):
        raise UnusableError(
            "wanted a question with an answer or answers, conversations, or messages, "
            f"found {some_of([str(name) for name in fields])}"
        )
    raise UnusableError(f"wanted a question of text, found {_kind(question)}")


def _answers(fields: Mapping[str, Any]) -> tuple[str, ...]:
    value = next((fields[c] for c in ANSWER_COLUMNS if fields.get(c) not in (None, [], ())), None)
    if value is fields.get("answers"):
        value = listing(value)
    alone = value[0] if isinstance(value, list | tuple) and len(value) == 1 else value
    if (choice := chosen(fields, alone)) is not None:
        return (_text(choice),)
    if value is None:
        others = [str(name) for name in fields if name not in USED_COLUMNS]
        raise UnusableError(
            "wanted an answer, or a list of answers, found none"
            + f"; it has {some_of(others)}, and a map such as answer=COLUMN tells which is meant"
            * bool(others)
        )
    answers = value if isinstance(value, list | tuple) else [value]
    if len(answers) > MAX_ANSWERS:
        raise UnusableError(f"it has more than {MAX_ANSWERS} answers")
    return tuple(_text(answer) for answer in answers)


def _text(value: object) -> str:
    """An answer as text; numbers and truth values are written as people write them."""
    if isinstance(value, Mapping) and "answer" not in value:
        found = some_of([*map(str, value)])
        raise UnusableError(f"wanted an answer of text, or under answer, found {found}")
    if isinstance(value, Mapping):
        value = value["answer"]
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Decimal) and value.is_finite():
        return str(int(value)) if value == value.to_integral_value() else f"{value.normalize():f}"
    if isinstance(value, float) and math.isfinite(value):
        return str(int(value)) if value.is_integer() else repr(value)
    raise UnusableError(f"wanted an answer of text, found {_kind(value)}")


def _checked(text: str, what: str, *, most: int) -> str:
    if not text.strip():
        raise UnusableError(f"its {what} is empty")
    if len(text) > most:
        raise UnusableError(f"its {what} has more than {most} characters")
    if "\0" in text:
        raise UnusableError(f"its {what} has a NUL")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise UnusableError(f"its {what} is no Unicode text")
    return text


def _name(fields: Mapping[str, Any], column: str) -> str | None:
    value = fields.get(column)
    if value is None or value == "":
        return None
    if isinstance(value, float) and value.is_integer():
        # Columns of whole numbers with gaps are floats in most tables.
        value = int(value)
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise UnusableError(f"wanted {column} as text or a whole number, found {_kind(value)}")
    return _checked(str(value), column, most=MAX_NAME_CHARACTERS)


def _kind(value: object) -> str:
    return "none" if value is None else type(value).__name__
