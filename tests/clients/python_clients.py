"""LangChain, LiteLLM and the `openai` package against a running service: `make clients`.

Each asks about a picture, goes on with a second turn, and streams; what is wrong ends the program.
"""

import base64
import io
import sys
from typing import Any, Literal

import litellm
import openai
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from PIL import Image, ImageDraw
from pydantic import BaseModel

URL = sys.argv[1] + "/v1"
MODEL = "pocket"


class Part(BaseModel):
    """What an answer as JSON has."""

    colour: Literal["red", "green", "blue"]
    is_broken: bool


def data_url(colour: str) -> str:
    picture = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(picture).ellipse((16, 16, 48, 48), fill=colour)
    out = io.BytesIO()
    picture.save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def check(wanted: object, found: object, what: str) -> None:
    if wanted != found:
        sys.exit(f"{what}: wanted {wanted!r}, found {found!r}")
    print("right:", what)


def first(colour: str = "red") -> list[dict[str, Any]]:
    return [
        {"type": "text", "text": "What color is it?"},
        {"type": "image_url", "image_url": {"url": data_url(colour)}},
    ]


def use_openai() -> str:
    client = openai.OpenAI(base_url=URL, api_key="none")
    messages: list[Any] = [{"role": "user", "content": first()}]
    said = client.chat.completions.create(model=MODEL, messages=messages, temperature=0)
    messages.append(said.choices[0].message)
    messages.append({"role": "user", "content": "And what shape?"})
    whole = client.chat.completions.create(model=MODEL, messages=messages, temperature=0)
    stream = client.chat.completions.create(
        model=MODEL, messages=messages, temperature=0, stream=True
    )
    pieces = [piece.choices[0].delta.content or "" for piece in stream if piece.choices]
    check(whole.choices[0].message.content, "".join(pieces), "openai: second turn, streamed")
    response = client.responses.create(model=MODEL, input="What is it?", temperature=0)
    with client.responses.stream(model=MODEL, input="What is it?", temperature=0) as events:
        events.until_done()
        check(response.output_text, events.get_final_response().output_text, "openai: responses")
    parsed = client.chat.completions.parse(model=MODEL, messages=messages[:1], response_format=Part)
    check(Part, type(parsed.choices[0].message.parsed), "openai: an answer as JSON")
    return said.choices[0].message.content or ""


def use_langchain(answer: str) -> None:
    model = ChatOpenAI(base_url=URL, api_key="none", model=MODEL, temperature=0)
    said = model.invoke([HumanMessage(content=first())])
    check(answer, said.content, "LangChain: a picture")
    turns = [
        SystemMessage("Be brief."),
        HumanMessage(content=first()),
        AIMessage(said.content),
        HumanMessage("And what shape?"),
    ]
    whole = model.invoke(turns)
    check(whole.content, "".join(one.content for one in model.stream(turns)), "LangChain: stream")
    check(2, len(model.batch(["What is it?", "What color?"])), "LangChain: a batch")
    embeddings = OpenAIEmbeddings(
        base_url=URL, api_key="none", model=MODEL, check_embedding_ctx_length=False
    )
    many = [f"text {number}" for number in range(1000)]
    check(1000, len(embeddings.embed_documents(many)), "LangChain: embeddings")
    found = model.with_structured_output(Part, method="json_schema").invoke("What is it?")
    check(Part, type(found), "LangChain: an answer as JSON")


def use_litellm(answer: str) -> None:
    options = {"model": f"openai/{MODEL}", "api_base": URL, "api_key": "none", "temperature": 0}
    said = litellm.completion(messages=[{"role": "user", "content": first()}], **options)
    check(answer, said.choices[0].message.content, "LiteLLM: a picture")
    turns = [
        {"role": "user", "content": first()},
        said.choices[0].message.model_dump(),
        {"role": "user", "content": "And what shape?"},
    ]
    whole = litellm.completion(messages=turns, **options)
    stream = litellm.completion(messages=turns, stream=True, **options)
    pieces = [piece.choices[0].delta.content or "" for piece in stream]
    check(whole.choices[0].message.content, "".join(pieces), "LiteLLM: second turn, streamed")


if __name__ == "__main__":
    picture_answer = use_openai()
    use_langchain(picture_answer)
    use_litellm(picture_answer)
