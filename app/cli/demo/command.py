"""`vlibrary demo`: the main job on real data, through the service's REST interface alone."""

import sys
from contextlib import ExitStack, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from app.cli.console import print_json
from app.cli.options import AsJson, require_writable
from app.cli.processes.temporary import passing_folder, running_service, wait_ready
from app.core.errors import ConfigurationError

if TYPE_CHECKING:
    from app.method.backbone.examples import Example
    from vlibrary_client import Client, Dataset, Job

TRAINING_TIMEOUT_SECONDS: Final = 1800.0
NAME: Final = "easy-vqa"
NUM_TRAINING_ITEMS: Final = 3000
NUM_QUESTIONS: Final = 500
NUM_RETRIEVED: Final = 20
# A threshold is set so that 95 % of its task's own items reach it.
LEAST_RETRIEVED_SHARE: Final = 0.8
SHOTS: Final = 16
EXTRA_MODULES: Final = ("easy_vqa", "matplotlib")
SEED: Final = 0
# The defaults of a training; nothing was ever chosen by the test questions.
TRAINING: Final[dict[str, Any]] = {"seed": SEED}


def demo(
    *,
    output: Annotated[Path, typer.Option(help="Folder for demo.json and demo.png.")] = Path(),
    questions: Annotated[int, typer.Option(min=1, help="Test questions to ask.")] = NUM_QUESTIONS,
    items: Annotated[
        int, typer.Option(min=100, help="Training questions to upload.")
    ] = NUM_TRAINING_ITEMS,
    data_dir: Annotated[
        Path | None, typer.Option(help="Keep the library here instead of a passing folder.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train an M2IV on easy-VQA, find it, steer with it, and compare it with demonstrations."""
    from app.cli.demo.report import write_report
    from vlibrary_client import Client

    require_extras()
    require_writable(output)
    with ExitStack() as stack:
        if as_json:
            # All that is told on the way is no result.
            stack.enter_context(redirect_stdout(sys.stderr))
        folder = data_dir or stack.enter_context(passing_folder())
        print("Starting the service (Postgres, worker with the pocket LVLM, api) ...")
        url = stack.enter_context(running_service(folder))
        client = stack.enter_context(Client(url))
        wait_ready(client)
        result = run_demo(client, num_items=items, num_questions=questions)
        write_report(result, output)
    if as_json:
        print_json(result)


def require_extras() -> None:
    """Returns when the packages of the demo are there, before minutes are spent without them.

    Raises:
        ConfigurationError: One is missing.
    """
    missing = [name for name in EXTRA_MODULES if find_spec(name) is None]
    if missing:
        raise ConfigurationError(
            f"The demo needs {' and '.join(missing)}: in the checkout, `pip install -e '.[demo]'`"
        )


def run_demo(client: "Client", *, num_items: int, num_questions: int) -> dict[str, Any]:
    """Everything the demo shows, as the content of `demo.json` plus what the report prints."""
    from app.cli.demo.comparison import compare
    from app.method.evaluation.tasks.loading import load_examples

    training = load_examples(NAME, split="train", limit=num_items, seed=SEED)
    test = load_examples(NAME, split="test", limit=num_questions, seed=SEED)
    shared = {example.image_id for example in training} & {example.image_id for example in test}
    if shared:
        raise ConfigurationError(f"the test pictures {sorted(shared)} are in the training set")
    dataset = upload(client, training)
    job = train(client, dataset)
    vector = client.vectors.get(job.vector or NAME)
    found = retrieval_facts(client, job, test[:NUM_RETRIEVED])
    print(f"Asking {len(test)} test questions five ways ...")
    return {
        "questions": len(test),
        **compare(client, test, training=training, dataset=dataset, vector=vector, shots=SHOTS),
        "icl_shots": SHOTS,
        "train_seconds": round(job.seconds or 0.0, 1),
        "training_items": len(training),
        **found,
        "vector_sha256": vector.sha256,
    }


def upload(client: "Client", examples: "list[Example]") -> "Dataset":
    """Stores the training questions as a data set of the service."""
    print(f"Uploading {len(examples)} easy-VQA training questions ...")
    items = [
        {"image": picture.data, "question": example.question, "answer": example.answer}
        for example in examples
        for picture in example.pictures
    ]
    return client.datasets.upload(items, name=f"{NAME}-train", description="easy-VQA, MIT")


def train(client: "Client", dataset: "Dataset") -> "Job":
    """Trains and stores the vector, with a progress bar."""
    job = client.train(
        NAME, dataset, shots=SHOTS, description="Coloured shapes of easy-VQA", **TRAINING
    )
    job = job.wait(progress=True, timeout=TRAINING_TIMEOUT_SECONDS)
    print(f"Stored {job.vector.ref if job.vector else NAME} after {job.seconds or 0.0:.0f} s")
    return job


def retrieval_facts(client: "Client", job: "Job", examples: "list[Example]") -> dict[str, Any]:
    """For how many new questions the vector is found, and whether for an unrelated one.

    A threshold leaves out some questions of its own task, so one question alone would tell little.
    """
    matches = [
        client.retrieve(image=picture.data, text=example.question)
        for example in examples
        for picture in example.pictures
    ]
    num_found = sum(
        not match.abstained
        and job.vector is not None
        and match.matches[0].vector.id == job.vector.id
        for match in matches
    )
    other = client.retrieve(image=unrelated_image(), text="Who signed this letter, and when?")
    print(
        f"Retrieval: found for {num_found} of {len(examples)} new pictures and questions, and "
        f"{'nothing' if other.abstained else 'something'} for noise and an unrelated question"
    )
    return {
        "retrieved": num_found >= LEAST_RETRIEVED_SHARE * len(examples),
        "retrieved_share": round(num_found / len(examples), 3),
        "abstained_on_unrelated": other.abstained,
    }


def unrelated_image() -> Any:  # noqa: ANN401 - Pillow is imported only when needed
    """A picture of nothing: coloured noise."""
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(SEED).integers(0, 256, size=(64, 64, 3), dtype=np.uint8)
    return Image.fromarray(pixels)
