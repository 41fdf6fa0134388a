"""Cross-modal alignment: vectors say how to answer; what is answered comes from the picture."""

from dataclasses import replace

from examples.uses.shapes import Bench, ask_about, facts

QUESTION = "what shape is in the image?"


def measure(bench: Bench) -> dict[str, dict[str, float]]:
    """Accuracy with the right picture, with another item's, and with none.

    Every item of the wrong pictures shows another shape than the one that counts as right.
    """

    def shape(shape: str, _color: str) -> str:
        return shape

    taught = ask_about(facts("validation", bench.items), QUESTION, shape)
    asked = ask_about(facts("test", bench.questions), QUESTION, shape)
    vectors = bench.train(taught)
    others = [next(other for other in asked if other.answer != item.answer) for item in asked]
    sights = {
        "right picture": asked,
        "wrong picture": [
            replace(item, image=other.image) for item, other in zip(asked, others, strict=True)
        ],
        "no picture": [replace(item, image=None) for item in asked],
    }
    return {
        name: {"zero-shot": bench.accuracy(items), "vector": bench.accuracy(items, vectors)}
        for name, items in sights.items()
    }
