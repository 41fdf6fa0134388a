"""The form of an answer in OpenAI's words: `response_format`, and `text.format` of responses.

Source: the API reference of OpenAI's chat completions and responses.
"""

from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import Field, StringConstraints, model_validator

from app.api.schemas.messages import LenientBody
from app.rpc.generation import SchemaObject, StructuredOutputs

FormatType: TypeAlias = Literal["text", "json_object", "json_schema"]
# A field of that name would hide a method of every body.
Schema: TypeAlias = Annotated[SchemaObject | None, Field(alias="schema")]
Label: TypeAlias = Annotated[str, StringConstraints(max_length=1_000)]


class JsonSchema(LenientBody):
    """A schema with its name; it is kept to strictly whatever `strict` says."""

    name: Label | None = None
    description: Label | None = None
    strict: bool | None = None
    schema_: Schema = None


class ResponseFormat(LenientBody):
    """The form of a chat completion."""

    type: FormatType
    json_schema: JsonSchema | None = None

    @property
    def form(self) -> StructuredOutputs | None:
        """The same in the words of this api; none for text."""
        schema = None if self.json_schema is None else self.json_schema.schema_
        return _form(self.type, schema, place="json_schema.schema")

    @model_validator(mode="after")
    def _has_its_schema(self) -> Self:
        _ = self.form
        return self


class TextFormat(JsonSchema):
    """The form of a response's text."""

    type: FormatType = "text"

    @property
    def form(self) -> StructuredOutputs | None:
        """The same in the words of this api; none for text."""
        return _form(self.type, self.schema_, place="schema")

    @model_validator(mode="after")
    def _has_its_schema(self) -> Self:
        _ = self.form
        try:
            self.model_dump_json()
        except ValueError:
            raise ValueError(
                "it cannot be sent back: it has a lone surrogate, or is nested too deeply"
            ) from None
        return self


def _form(
    kind: FormatType, schema: dict[str, Any] | None, *, place: str
) -> StructuredOutputs | None:
    if kind == "json_schema" and schema is None:
        raise ValueError(f"a json_schema has the schema at {place}")
    if kind != "json_schema" and schema is not None:
        raise ValueError(f"a schema at {place} is for the type json_schema, found {kind}")
    if kind == "text":
        return None
    if kind == "json_object":
        return StructuredOutputs(json_object=True)
    return StructuredOutputs.model_validate({"json": schema})
