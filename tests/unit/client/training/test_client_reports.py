import io

from rich.console import Console

from vlibrary_client.terminals import print_report, progress_reporter
from vlibrary_client.types import Progress


def test_a_report_shows_everybody_side_by_side_and_what_to_do() -> None:
    row = {"accuracy": 0.5, "low": 0.4, "high": 0.6, "prompt_tokens": 16.2, "labels": 3}
    report = {
        "items": 40,
        "shots": 7,
        "status": "unproven",
        "reason": "40 items show no gain.",
        "advice": "Add labelled items.",
        "conditions": {"icl": row, "zero_shot": row, "m2iv": row, "knn_icl": row, "other": row},
    }
    text = io.StringIO()
    print_report(report, console=Console(file=text, width=120))
    printed = text.getvalue()
    wanted = ["40 held-out items", "M2IV", "7-shot ICL", "7-shot kNN-ICL", "other"]
    for text_of in (*wanted, "40.0% - 60.0%", "unproven: 40 items", "Add labelled items."):
        assert text_of in printed
    assert printed.index("M2IV") < printed.index("zero-shot") < printed.index("7-shot ICL")
    unmeasured = io.StringIO()
    print_report({**report, "conditions": {}}, console=Console(file=unmeasured))
    assert "unproven" in unmeasured.getvalue()
    assert "Looks the same" not in unmeasured.getvalue()
    fewer = io.StringIO()
    shown = {"wanted": 64, "found": 8}
    print_report({**report, "demonstrations": shown}, console=Console(file=fewer, width=120))
    assert "Wanted 64 demonstrations before a question, found 8" in fewer.getvalue()
    enough = io.StringIO()
    shown = {"wanted": 8, "found": 8}
    print_report({**report, "demonstrations": shown}, console=Console(file=enough, width=120))
    assert "demonstrations before" not in enough.getvalue()
    alike = io.StringIO()
    print_report({**report, "overlaps": ["a", "b"]}, console=Console(file=alike, width=120))
    assert "Looks the same as a, b" in alike.getvalue()


def test_an_evaluation_tells_its_times_and_what_it_did_not_ask() -> None:
    row = {
        "accuracy": 0.5, "low": 0.4, "high": 0.6, "prompt_tokens": 16.2, "labels": None,
        "ms_per_query": 4.25,
    }  # fmt: skip
    report = {
        "items": 40, "shots": 7, "status": "ready", "reason": "Better.", "advice": "Use it.",
        "conditions": {"m2iv": row, "icl": row}, "left_out": 12, "unchecked": ["gears@1"],
    }  # fmt: skip
    text = io.StringIO()
    print_report(report, console=Console(file=text, width=120))
    for wanted in ("ms a query", "4.2", " ? ", "Left out: 12 items", "trained on: gears@1"):
        assert wanted in text.getvalue()
    narrow = io.StringIO()
    copied = {"m2iv": row, "nearest_copy": row}
    print_report({**report, "conditions": copied}, console=Console(file=narrow, width=80))
    assert "nearest item's answer" in narrow.getvalue()
    assert "accuracy" in narrow.getvalue()
    assert narrow.getvalue().count("40.0% - 60.0%") == 2
    trained = {name: {**row, "labels": 3} for name in ("m2iv", "icl")}
    for one in trained.values():
        del one["ms_per_query"]
    plain = io.StringIO()
    whole = {**report, "conditions": trained, "left_out": 0, "unchecked": []}
    print_report(whole, console=Console(file=plain, width=120))
    for unwanted in ("ms a query", "Left out", "Nobody knows"):
        assert unwanted not in plain.getvalue()


def test_names_of_others_are_no_markup() -> None:
    report = {
        "items": 1, "shots": 1, "status": "ready", "reason": "a[/b] :key:", "advice": "",
        "conditions": {},
    }  # fmt: skip
    text = io.StringIO()
    print_report(report, console=Console(file=text, width=120))
    assert "a[/b] :key:" in text.getvalue()
    console = Console(file=text, width=120)
    with progress_reporter(progress=True, title="[/b]mine", waits_for="a [/b]", console=console):
        pass
    assert "[/b]mine · waits for a [/b]" in text.getvalue()


def test_no_step_is_shown_before_one_is_known() -> None:
    text = io.StringIO()
    console = Console(file=text, width=120)
    with progress_reporter(progress=True, title="parts", console=console):
        pass
    with progress_reporter(progress=True, title="parts", console=console) as report:
        report(Progress(phase="student", step=3, num_steps=12))
    assert "/?" not in text.getvalue()
    assert "parts · student" in text.getvalue()
    assert " 3/12 " in text.getvalue()
