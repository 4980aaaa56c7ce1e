"""Writes the results' tables and docs/models.md from what the runs left.

    python docs/results_table.py

Figures, device and time are those of drawjax/pretrained/*/config.json, beside the weights, and of
docs/measured/*.json, the results.json of runs whose weights are not kept.
"""

import dataclasses
import json
import pathlib

ROOT = pathlib.Path(__file__).parents[1]
BEGIN, END = "<!-- table: docs/results_table.py -->\n", "<!-- end of the table -->\n"


@dataclasses.dataclass(frozen=True)
class Row:
    """A row: what the paper says, and the model or run that is compared with it."""

    experiment: str
    paper: str
    model: str | None
    command: str
    like: str  # how far the two can be compared
    runs: int = 1  # that the figure came out of, each going on from the one before; 1: from scratch
    short: bool = False  # with fewer steps than the preset has, or smaller sizes
    flags: str = ""  # after the command, which make it so; README.md leaves them out
    log: str = ""  # where in the logbook the commands of a chain, or of a cut run, are
    test: str = "test"
    run: str | None = None  # in docs/measured, where there is no model
    trained: str = (
        ""  # hardware and time from the logbook, where what is kept has not the training's
    )


OURS = "not in the paper"

ROWS = (
    Row(
        "MNIST, DRAW, static binarization alone", "80.97 nats", "mnist_static",
        "experiments.mnist_generation", "yes",
    ),
    Row(
        "MNIST, DRAW, static binarization alone, a chain of runs", "80.97 nats", None,
        "experiments.mnist_generation",
        "yes; 13 million images, not 10, most in batches of 200 at up to 2.8e-3",
        runs=4, run="mnist_chain", log="with-attention-the-static-binarization-alone",
    ),
    Row(
        "MNIST, DRAW, dynamic binarization", "80.97 nats", "mnist",
        "experiments.mnist_generation --preset fresh",
        "the paper's test images; trained on dynamic binarization, from the chain of 4 on", runs=5,
        test="fixed_test", log="with-attention-dynamic-binarization",
    ),
    Row(
        "MNIST, DRAW, static binarization, validation images too", "80.97 nats", None,
        "experiments.mnist_generation --preset all_images",
        "more training images than the paper; 1,800 steps of 200 from the chain of 4 on",
        runs=5, run="mnist_all_images", log="the-validation-images-too",
    ),
    Row(
        "MNIST, dynamic binarization, learned prior", OURS, None,
        "experiments.mnist_generation --preset fresh --model.prior learned",
        "6,500 steps of 200 from `mnist` on",
        runs=6, run="mnist_learned_prior", trained="2 CPU cores, 93 minutes",
        log="a-learned-prior-for-a-trained-model",
    ),
    Row(
        "MNIST, static binarization alone, learned prior", OURS, None,
        "experiments.mnist_generation --preset learned_prior",
        "half the images of the first row; steps 22,300 to 39,575 were in float32",
        run="mnist_learned_prior_one_run",
    ),
    Row(
        "MNIST, by class: a bound on log p(x given label)", OURS, "mnist_classes",
        "experiments.mnist_generation --preset classes",
        "no: the label is given; the test images binarized anew too",
        trained="1 CPU core, 34 minutes",
    ),
    Row(
        "MNIST, the same without classes", OURS, None,
        "experiments.mnist_generation --preset classes --model.num-classes None",
        "the test images binarized anew too", run="mnist_no_classes",
        trained="1 CPU core, 32 minutes",
    ),
    Row(
        "MNIST, DRAW without attention", "87.40 nats", "mnist_no_attention",
        "experiments.mnist_generation --preset no_attention", "yes", runs=3,
        log="without-attention",
    ),
    Row(
        "Cluttered MNIST, 4 glimpses", "4.18 %", "ram4",
        "experiments.cluttered_mnist_classification --preset four_glimpses",
        "yes; clutter of our own making",
    ),
    Row(
        "Cluttered MNIST, 8 glimpses", "3.36 %", "ram8",
        "experiments.cluttered_mnist_classification", "yes; clutter of our own making",
    ),
    Row(
        "Cluttered MNIST, 6 glimpses of two scales", OURS, None,
        "experiments.cluttered_mnist_classification --preset scales",
        "our own architecture", run="cluttered_scales", trained="1 CPU core, 96 minutes",
    ),
    Row(
        "Two digits", "no number", None, "experiments.two_digit_mnist_generation",
        "34,000 steps of 50; the preset has 150,000 of 100", short=True,
        run="two_digits_one_run", trained="1 CPU core, 58 minutes", log="two-digits",
        flags="--model.precision bfloat16 --train.batch-size 50 --train.learning-rate 2e-3 "
        "--train.decay-fraction 0.6 --train.ema-decay 0.998 --train.eval-every 2000 "
        "--train.steps 34000",
    ),
    Row(
        "Two digits, a chain of runs", "no number", "two_digits",
        "experiments.two_digit_mnist_generation",
        "twice the images; not trained to its end", runs=2, log="two-digits",
    ),
    Row(
        "CIFAR-10", "no number", None, "experiments.cifar10_generation",
        "12,000 steps of 50; the preset has 150,000 of 100", short=True,
        run="cifar10_paper", trained="1 CPU core, 75 minutes", log="cifar-10",
        flags="--model.precision bfloat16 --train.batch-size 50 --train.learning-rate 1e-3 "
        "--model.clip-ratio 2 --train.decay-fraction 0.6 --train.ema-decay 0.998 "
        "--train.steps 12000",
    ),
    Row(
        "CIFAR-10, discretized logistic likelihood", OURS, "cifar10",
        "experiments.cifar10_generation --preset logistic",
        "16,000 steps of 50; the preset has 150,000 of 100", short=True,
        trained="1 CPU core, 104 minutes", log="cifar-10",
        flags="--model.precision bfloat16 --train.batch-size 50 --train.learning-rate 1e-3 "
        "--model.clip-ratio 2 --train.decay-fraction 0.6 --train.ema-decay 0.998 "
        "--train.steps 16000",
    ),
    Row(
        "Street View house numbers", "about 5,065 nats, read off Fig. 11", None,
        "experiments.svhn_generation",
        "no: 3,732 training and 424 test numbers, nearly all put together from single digits of "
        "the test archive",
        short=True, run="svhn_tight54", trained="1 CPU core, 69 minutes", log="svhn",
        flags="--data.name svhn_tight54_sample --model.precision bfloat16 --train.batch-size 50 "
        "--train.learning-rate 5e-4 --train.decay-fraction 0.6 --train.ema-decay 0.998 "
        "--train.eval-every 500 --train.steps 5000",
    ),
    Row(
        "Street View house numbers, learned prior", OURS, "svhn",
        "experiments.svhn_generation --model.prior learned",
        "the same sample; 24 steps and 1.9 million parameters for 32 and 11.3", short=True,
        trained="1 CPU core, 31 minutes", log="svhn",
        flags="--data.name svhn_tight54_sample --model.hidden-size 256 --model.latent-size 50 "
        "--model.num-glimpses 24 --model.precision bfloat16 --model.clip-ratio 2 "
        "--train.batch-size 50 --train.learning-rate 1e-3 --train.decay-fraction 0.6 "
        "--train.ema-decay 0.998 --train.eval-every 500 --train.steps 8000",
    ),
)  # fmt: skip


def full() -> str:
    """The table of docs/results.md."""
    lines = [
        "| experiment | paper | ours | one run from scratch | model | command "
        "| hardware and time | like for like |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in ROWS:
        ours, trained = figure(row), row.trained or _trained(_provenance(row))
        if row.runs > 1:
            trained += ", the last run"
        model = f"`{row.model}`" if row.model else ""
        command = f"python -m {row.command} {row.flags}".rstrip()
        lines.append(
            f"| {row.experiment} | {row.paper} | {ours} | {from_scratch(row, 'logbook.md')} | "
            f"{model} | `{command}` | {trained} | {row.like} |"
        )
    return "\n".join(lines) + "\n"


def short() -> str:
    """The table of README.md: the paper's rows, those first whose command gives the figure."""
    lines = [
        "| | paper | ours | one run from scratch | command |",
        "| --- | --- | --- | --- | --- |",
    ]
    rows = [row for row in ROWS if row.paper != OURS]
    for row in sorted(rows, key=lambda row: (row.short, row.runs > 1)):
        lines.append(
            f"| {row.experiment} | {row.paper} | {figure(row)} | "
            f"{from_scratch(row, 'docs/logbook.md')} | `python -m {row.command}` |"
        )
    return "\n".join(lines) + "\n"


def from_scratch(row: Row, logbook: str) -> str:
    """Whether the figure is of one run from fresh parameters, as the command makes it."""
    if row.runs == 1 and not row.short:
        return "yes"
    said = f"chain of {row.runs}" if row.runs > 1 else "yes, cut short"
    return f"[{said}]({logbook}#{row.log})"


def cards() -> str:
    """docs/models.md: a card for each model that comes with the package."""
    lines = [
        "# Models",
        "",
        "The models that come with the package, `drawjax.load_pretrained(NAME)`, in float16.",
        "`test` is what the run printed, or an evaluation since; rounding moves a bound by at most",
        "0.01 nats or 0.001 bits per dimension.",
        "docs/results_table.py writes this page from the files beside the weights; their history",
        "is in [the logbook](logbook.md). `drawjax models` lists them too.",
    ]
    for row in sorted((row for row in ROWS if row.model), key=lambda row: str(row.model)):
        known = _known(str(row.model))
        provenance, config = known["provenance"], known["config"]
        shape = "x".join(map(str, known["image_shape"]))
        of = "draws" if known["kind"] == "draw" else "classifies"
        sizes = ", ".join(
            f"{name} {value}"
            for name, value in config.items()
            if isinstance(value, int | str) and not isinstance(value, bool)
        )
        data = provenance["data"]
        if provenance.get("binarization") not in (None, "none"):
            data += f", binarization {provenance['binarization']}"
        lines += [
            "",
            f"## {row.model}",
            "",
            "| | |",
            "| --- | --- |",
            f"| what it does | {of} images of {shape}: {row.experiment} |",
            f"| sizes | {sizes}; {provenance['parameters']:,} parameters |",
            f"| trained on | {data} |",
            f"| test | {figure(row)}; {'' if row.paper == OURS else 'the paper: '}{row.paper} |",
            f"| one run from scratch | {from_scratch(row, 'logbook.md')} |",
            f"| compares with the paper | {row.like} |",
            f"| last run | {row.trained or _trained(provenance)}, commit {provenance['commit']} |",
            f"| weights | {known['sha256'][:16]}... (SHA-256) |",
        ]
        lines += [f"| note | {note} |" for note in provenance.get("notes", ())]
    return "\n".join(lines) + "\n"


def figure(row: Row) -> str:
    """Our figure with its standard error."""
    test = _provenance(row)[row.test]
    if "bits_per_dimension" in test:
        bits, error = test["bits_per_dimension"], test["bits_per_dimension_standard_error"]
        return f"{bits:.3f} +- {error:.3f} bits per dimension"
    if "error" in test:
        return f"{test['error']:.2f} +- {test['standard_error']:.2f} %"
    return f"{test['loss']:,.2f} +- {test['standard_error']:.2f} nats"


def rewritten(text: str, table: str) -> str:
    """A page with the table between its marks replaced."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + "\n" + table + "\n" + END + after


def pages() -> dict[pathlib.Path, str]:
    """The pages as they should be."""
    tables = {ROOT / "docs" / "results.md": full(), ROOT / "README.md": short()}
    texts = {path: rewritten(path.read_text(), table) for path, table in tables.items()}
    return texts | {ROOT / "docs" / "models.md": cards()}


def _provenance(row: Row) -> dict:
    if row.run is not None:
        return json.loads((ROOT / "docs" / "measured" / f"{row.run}.json").read_text())
    return _known(str(row.model))["provenance"]


def _known(model: str) -> dict:
    return json.loads((ROOT / "drawjax" / "pretrained" / model / "config.json").read_text())


def _trained(provenance: dict) -> str:
    return f"{_device(provenance['device'])}, {_time(provenance['seconds'])}"


def _device(device: str) -> str:
    return "2 CPU cores" if device.endswith("cpu") else device.removeprefix("1 x ")


def _time(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
