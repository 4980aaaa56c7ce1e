"""The command line: flags from configs, errors of one line, exit codes; experiments and `drawjax`.

Flags are read before JAX is loaded, so that `--help` and a wrong flag need not wait for it.
"""

import contextlib
import dataclasses
import fractions
import importlib
import importlib.metadata
import importlib.util
import io
import logging
import os
import pathlib
import pkgutil
import re
import runpy
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NoReturn, TextIO, TypeVar

import tyro

from drawjax.config import Checked, ExperimentConfig, flatten, nearest, option

__all__ = [
    "Options",
    "command",
    "drawjax",
    "fail",
    "given",
    "main",
    "parse",
    "read",
    "run_command",
    "run_experiment",
    "swept_field",
]

T = TypeVar("T")
Config = TypeVar("Config")


# Experiments.


@dataclasses.dataclass(frozen=True)
class Options(Checked):
    """What a command can do with any experiment."""

    _prefix = "--"

    sweep: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """FIELD=VALUE,VALUE,...: run once for each value, with several --sweep for each combination.
    Points that differ only in numbers (rate, seed, clipping, decay) train side by side."""
    sweep_index: int | None = None
    """Run this point of the sweep alone, counted from 0; for a scheduler's array jobs."""
    sweep_parallel: int | None = option(None, low=1)
    """Train at most so many points side by side; None: all that can be."""
    debug_nans: bool = False
    """Stop at the operation that makes the first NaN; slow."""
    coordinator: str | None = None
    """HOST:PORT of process 0, where one run has several processes; None: as the scheduler (SLURM,
    Kubernetes with jax[k8s], Cloud TPU, Open MPI) says."""
    processes: int | None = None
    """How many processes the run has."""
    process: int | None = None
    """Which of them this is, from 0."""

    @property
    def swept(self) -> set[str]:
        """The fields that `sweep` names."""
        return {swept_field(item) for item in self.sweep}


def main(
    presets: Mapping[str, ExperimentConfig] | Callable[[], Mapping[str, ExperimentConfig]],
    *,
    model: Callable[..., Any] | None = None,
    dataset: Any = None,
    optimizer: Any = None,
    experiment: Any = None,
    description: str | None = None,
    argv: Sequence[str] | None = None,
) -> NoReturn:
    """The command line of an experiment; ends the process.

    Args:
      presets: configs by name, for `--preset`; flags replace their values. The first is the
        default. Or a function that makes them, once the command has begun.
      model: as for `drawjax.train`.
      dataset: as for `drawjax.train`.
      optimizer: as for `drawjax.train`.
      experiment: as for `drawjax.train`.
      description: what `--help` says first.
      argv: the arguments; None: the process's.
    """

    def run(configs: Sequence[ExperimentConfig]) -> Sequence[Any]:
        with _named_extra("training"):
            from drawjax.runner import train_all

        return train_all(
            configs, model=model, dataset=dataset, optimizer=optimizer, experiment=experiment,
            given=given(argv),
        )  # fmt: skip

    run_experiment(presets, run, argv, description=description)


def run_experiment(
    presets: Mapping[str, Config] | Callable[[], Mapping[str, Config]],
    run: Callable[[Sequence[Config]], Sequence[Any]],
    argv: Sequence[str] | None = None,
    *,
    description: str | None = None,
) -> NoReturn:
    """Runs an experiment as the command line asks, alone or as a sweep, and ends the process.

    Args:
      presets: as in `main`.
      run: does what configs say. It is given several only in a sweep, and then such as can be
        trained side by side; it returns one result a config, `Diverged` among them.
      argv: the arguments; None: the process's.
      description: what `--help` says first.
    """

    def experiment() -> None:
        chosen = presets() if callable(presets) else presets
        config, options = parse(chosen, argv, description=description, options=Options())

        with _named_extra("training"):
            import jax

            from drawjax.training import Diverged, hosts

        sweep = _sweep(config, options)
        hosts.connect(
            options.coordinator, options.processes, options.process,
            indexed=options.sweep_index is not None,
        )  # fmt: skip
        if not hosts.is_first():
            logging.getLogger().setLevel(logging.WARNING)
        if options.debug_nans:  # else as JAX_DEBUG_NANS says
            jax.config.update("jax_debug_nans", True)
        if sweep is not None:
            from drawjax import sweeps

            points, groups = sweep
            sweeps.run_groups(points, groups, run)
            return
        (outcome,) = run([config])
        if isinstance(outcome, Diverged):
            raise outcome

    run_command(experiment)


def _sweep(config: Any, options: Options) -> Any:
    """The points of the sweep that is asked for, and groups that train together; None: no sweep."""
    if not options.sweep:
        if options.sweep_index is not None:
            fail("--sweep-index picks a point of a --sweep, and there is none")
        if options.sweep_parallel is not None:
            fail("--sweep-parallel is of the points of a --sweep, and there is none")
        return None
    if options.sweep_index is not None and options.sweep_parallel is not None:
        fail("--sweep-index runs one point alone; leave out --sweep-parallel")
    from drawjax import sweeps

    try:
        points = sweeps.expand(config, options.sweep)
        index, most = options.sweep_index, options.sweep_parallel
        return points, sweeps.grouped(points, index=index, most=most)
    except ValueError as error:
        fail(str(error))


@contextlib.contextmanager
def _named_extra(what: str) -> Iterator[None]:
    """Names what is missing of the extra that training and data need."""
    try:
        yield
    except ModuleNotFoundError as error:
        if str(error.name).startswith("drawjax"):
            raise
        fail(f"{what} needs {error.name}: pip install 'drawjax[train]'")


# The command `drawjax`, which runs the others by name.

_COMMANDS = {
    "train": "an experiment: `drawjax train mnist_generation --preset demo`",
    "sample": "draw with a model that comes with the package",
    "explore": "a local page: move the attention window, watch a model draw",
    "export": "write a model to a file for other runtimes: ONNX or StableHLO",
    "report": "a run's page, or one that compares runs",
    "prepare": "download a data set of images, or make one of a folder of pictures",
    "models": "the models that come with the package, and how good they are",
}
_MODULES = {  # with the function in it, and the config of that
    "sample": ("drawjax.sample", "sample", "SampleConfig"),
    "explore": ("drawjax.explore.__main__", "explore", "ExploreConfig"),
    "export": ("drawjax.export_command", "export", "ExportConfig"),
    "report": ("drawjax.report.__main__", "report", "ReportConfig"),
    "prepare": ("drawjax.data.prepare", "prepare_all", "PrepareConfig"),
    "models": ("drawjax.pretrained.listing", "list_models", "ListingConfig"),
}
_EXPERIMENTS = "drawjax.experiments"


def drawjax(argv: Sequence[str] | None = None) -> NoReturn:
    """Runs a command by its name; ends the process.

    Args:
      argv: the arguments; None: the process's.
    """
    run_command(lambda: _run_named(list(sys.argv[1:] if argv is None else argv)))


def _run_named(arguments: list[str]) -> int | None:
    name, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if name in ("-h", "--help"):
        print(_usage("drawjax COMMAND ...", _COMMANDS))
        print("\n`drawjax COMMAND --help` lists a command's flags; --tyro-print-completion SHELL")
        print("prints a script that completes them (bash, zsh, tcsh).")
    elif name == "--version":
        print(importlib.metadata.version("drawjax"))
    elif name == "--tyro-print-completion":
        _print_completion(rest)
    elif name == "train":
        _train(rest)
    else:
        path, function, config = _MODULES[_known(name, _COMMANDS, "command")]
        sys.argv[0] = f"drawjax {name}"
        with _named_extra(sys.argv[0]):
            module: Any = importlib.import_module(path)
        default = getattr(module, config)()
        return getattr(module, function)(parse(default, rest, description=module.DESCRIPTION))
    return None


def _train(arguments: list[str]) -> None:
    names = _experiments()
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage("drawjax train EXPERIMENT ...", names))
        return
    name = _known(arguments[0].replace("-", "_"), names, "experiment")
    sys.argv = [f"drawjax train {name}", *arguments[1:]]
    with _named_extra(sys.argv[0]):
        runpy.run_module(f"{_EXPERIMENTS}.{name}", run_name="__main__", alter_sys=False)


def _experiments() -> dict[str, str]:
    """The experiments that are installed, with the first line of each."""
    if importlib.util.find_spec(_EXPERIMENTS) is None:
        fail("drawjax is not installed: pip install drawjax, or `pip install -e .` here")
    package = importlib.import_module(_EXPERIMENTS)
    found = {}
    for module in pkgutil.iter_modules(package.__path__):
        spec: Any = importlib.util.find_spec(f"{_EXPERIMENTS}.{module.name}")
        line = spec.loader.get_source(spec.name).partition("\n")[0]
        found[module.name] = line.strip('"').rstrip(".")
    return found


def _known(name: str, names: Mapping[str, Any], what: str) -> str:
    if name not in names:
        near = nearest(name, list(names))
        fail(f"unknown {what} {name!r}{near}; there are: {', '.join(names)}")
    return name


def _usage(call: str, names: Mapping[str, str]) -> str:
    return f"usage: {call}\n\n" + aligned([["", *item] for item in names.items()])


def aligned(rows: Sequence[Sequence[str]], place: Callable[[str, int], str] = str.ljust) -> str:
    """A table of text, its columns as wide as need be, two spaces between them."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(place, row, widths)).rstrip() for row in rows)


def _print_completion(arguments: list[str]) -> None:
    app, train = tyro.extras.SubcommandApp(), tyro.extras.SubcommandApp()
    with _named_extra("completion of all commands"):
        for name, (module, _, config) in _MODULES.items():
            app.command(getattr(importlib.import_module(module), config), name=name)
        for name in _experiments():
            presets = importlib.import_module(f"{_EXPERIMENTS}.{name}").PRESETS
            trains = isinstance(next(iter(presets.values())), ExperimentConfig)
            everything: Any = type(_together(presets, Options() if trains else None))
            train.command(everything, name=name)
    app.command(train, name="train")
    app.cli(prog="drawjax", args=["--tyro-print-completion", *arguments])


# Any command: flags, logs, errors of one line, exit codes, an output that nobody reads.

_FAILED, _NOT_FINITE = 1, 3


def command(
    function: Callable[[T], Any],
    default: T | Mapping[str, T],
    argv: Sequence[str] | None = None,
    *,
    description: str | None = None,
) -> NoReturn:
    """The command line of a function of a config; ends the process.

    Args:
      function: what to do; it returns the exit code, or None.
      default: as for `parse`.
      argv: the arguments; None: the process's.
      description: what `--help` says first.
    """
    run_command(lambda: function(parse(default, argv, description=description)))


def run_command(command: Callable[[], Any]) -> NoReturn:
    """Runs a command and ends the process, with one line for the errors that a user can mend.

    Logs go to stderr. Exit codes: what the command returns, or 0: done. 1: the data, the folder or
    a value is not usable. 2: bad flags. 3: training diverged. 128 + N: stopped by signal N
    (130 Ctrl-C, 143 SIGTERM), a run being saved; 141: nobody reads the output any more, as in
    `... --help | head`.

    Compiled programs are kept in ~/.cache/drawjax; JAX_COMPILATION_CACHE_DIR names another folder,
    or, if empty, none. DRAWJAX_TRACEBACK=1 shows where an error came from.

    Args:
      command: what to run.
    """
    # Closed files (as under cron) would make the first files opened take their place.
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or open(os.devnull, "w")
    sys.stderr = sys.stderr or open(os.devnull, "w")
    _set_up_logs()
    _set_up_cache()
    try:
        with _logs_above_bars():
            code = _run(command)
        sys.stdout.flush()
    except BrokenPipeError:
        # The signal itself stays ignored, as Python has it: it would also end a run whose log alone
        # is gone.
        code = 128 + signal.SIGPIPE
        _discard(sys.stdout)
    except OSError as error:
        code = _FAILED
        _discard(sys.stdout)
        _say(f"cannot write to the output: {error.strerror}")
    try:
        sys.stderr.flush()
    except OSError:
        _discard(sys.stderr)
    hosts = sys.modules.get("drawjax.training.hosts")
    if code and hosts is not None:  # of several processes, which may wait for this one
        hosts.leave(code)
    sys.exit(code)


def _run(command: Callable[[], Any]) -> int:
    """Runs it, and says what went wrong; returns the exit code."""
    try:
        return command() or 0
    except SystemExit as stop:  # --help, or a bad flag
        if isinstance(stop.code, str):
            return _say(stop.code)
        return stop.code or 0
    except BrokenPipeError:
        raise
    except KeyboardInterrupt:
        return _say("stopped", 128 + signal.SIGINT)
    except FloatingPointError as error:  # of --debug-nans
        traceback.print_exc()
        return _say(str(error).splitlines()[0], _NOT_FINITE)
    except Exception as error:
        if not _has_devices():
            platforms = os.environ["JAX_PLATFORMS"]
            return _say(f"JAX finds none of the devices that JAX_PLATFORMS={platforms} names")
        code = getattr(error, "exit_code", None)  # of the errors of a run
        expected = code or isinstance(error, (ValueError, OSError, ModuleNotFoundError))
        if not expected or os.environ.get("DRAWJAX_TRACEBACK"):
            traceback.print_exc()
        return _say(str(error) if expected else repr(error), code or _FAILED)


def _say(message: str, code: int = _FAILED) -> int:
    try:
        print(f"error: {' '.join(message.split())}", file=sys.stderr)
    except OSError:
        _discard(sys.stderr)
    return code


def _has_devices() -> bool:
    """Whether JAX has a device, as far as it was asked for certain ones."""
    if "jax" not in sys.modules or not os.environ.get("JAX_PLATFORMS"):
        return True
    try:
        return bool(sys.modules["jax"].devices())
    except (RuntimeError, AssertionError):  # which one depends on whether it was asked before
        return False


def _discard(file: TextIO) -> None:
    """Throws away what cannot be written, or the interpreter would fail once more when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())


def _set_up_logs() -> None:
    """Logs of our own; of others only what a user can use."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True
    )
    for chatty in ("jax", "orbax", "tensorboardX", "tensorflow_datasets"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    # Orbax logs, with tracebacks, what it raises as well; and of a save that fails asyncio says, at
    # some time later, that nobody asked for the rest of its errors.
    for twice in ("absl", "asyncio"):
        logging.getLogger(twice).setLevel(logging.CRITICAL)


def _logs_above_bars() -> contextlib.AbstractContextManager[None]:
    """While in it, lines of the log do not tear the progress bars on a terminal."""
    if not sys.stderr.isatty() or importlib.util.find_spec("tqdm") is None:
        return contextlib.nullcontext()
    from tqdm.contrib.logging import logging_redirect_tqdm  # warns in a notebook without widgets

    return logging_redirect_tqdm()


def _set_up_cache() -> None:
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR", os.path.expanduser("~/.cache/drawjax"))
    if not os.path.isabs(folder):  # "", or a user without a home
        return
    if "jax" in sys.modules:
        sys.modules["jax"].config.update("jax_compilation_cache_dir", folder)
    else:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder


# Dataclasses from flags, by tyro: presets, nearest names, errors of one line.


def parse(
    default: T | Mapping[str, T],
    argv: Sequence[str] | None = None,
    *,
    description: str | None = None,
    options: Any = None,
    raises: bool = False,
) -> Any:
    """Reads a dataclass from the command line.

    Args:
      default: an instance, or several by name: `--preset NAME` picks the one whose values flags
        then replace, and the first is taken without the flag.
      argv: the arguments; None: the process's.
      description: what `--help` says first.
      options: an instance of another dataclass, whose flags stand beside.
      raises: whether values that the dataclass refuses are a ValueError, for a caller that can do
        otherwise.

    Returns:
      The instance, or a pair of both if there are `options`. Bad flags end the process with one
      line and exit code 2.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    chosen, config = None, default
    if isinstance(default, Mapping):
        chosen, arguments = _preset(arguments, list(default))
        config = default[chosen]
    fields = [name for part in (config, options) if part is not None for name in flatten(part)]
    known = ["help", *(["preset"] if chosen else []), *fields]
    seen: dict[str, bool] = {}  # and whether a --sweep names it
    for name, swept in _named(arguments):
        own = next((n for n in (name, _affirmed(name)) if n in known), None)
        if own is None and (swept or name.startswith("tyro_")):
            continue
        if own is None:
            fail(f"unknown flag {_flag(name)}{nearest(_flag(name), list(map(_flag, known)))}")
        if own in seen and own != "sweep" and not (swept and seen[own]):
            fail(f"{_flag(own)} is given twice")
        seen[own] = swept
    together = _together(default, options, chosen)
    try:
        parsed = read(together, arguments, description=description or "", prog=_prog())
    except ValueError as error:
        if raises:
            raise
        fail(str(error))
    return parsed.config if options is None else (parsed.config, parsed.options)


def _together(default: Any, options: Any = None, preset: str | None = None) -> Any:
    """All that `parse` reads, as one dataclass: the preset, the config's flags, the options'."""
    unnamed = tyro.conf.arg(name="")
    fields, values = [], {}
    if isinstance(default, Mapping):
        names = tuple(default)
        values["preset"] = preset or names[0]
        said = tyro.conf.arg(help="Whose values the other flags replace.")
        fields.append(("preset", Annotated[Literal[names], said]))
        default = default[values["preset"]]
    for name, part in (("config", default), ("options", options)):
        if part is not None:
            fields.append((name, Annotated[type(part), unnamed]))
            values[name] = part
    return dataclasses.make_dataclass("Arguments", fields)(**values)


def read(
    default: T,
    arguments: Sequence[str],
    *,
    description: str = "",
    prog: str | None = None,
    markers: Sequence[Any] = (),
) -> T:
    """Replaces fields of a nested dataclass by what flags say.

    `--help` prints and ends the process.

    Args:
      default: an instance.
      arguments: the flags, `--model.hidden-size 100`.
      description: what `--help` says first.
      prog: the command that `--help` names.
      markers: tyro's, for all flags.

    Raises:
      ValueError: for a flag that cannot be read, or a value that the dataclass refuses.
    """
    for before, argument in zip(["", *arguments], arguments, strict=False):
        flag, equals, value = argument.partition("=")
        if not argument or (flag.startswith("--") and equals and not value):  # "." as a path
            flag = next((n for n in (flag, before) if n.startswith("--")), "an argument")
            raise ValueError(f"{flag} must not be empty; leave it out for the default")
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                type(default), default=default, args=arguments, description=description,
                prog=prog, config=tuple(markers), registry=_TYPES,
            )  # fmt: skip
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ValueError(_unboxed(said.getvalue())) from None


def given(argv: Sequence[str] | None = None) -> set[str]:
    """The fields that arguments name, `model.hidden_size`, --sweep's too; None: the process's."""
    names = [name for name, _ in _named(sys.argv[1:] if argv is None else argv)]
    return {*names, *map(_affirmed, names)} - {"sweep"}


def _named(arguments: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """The fields that arguments name, in their order, and whether it is a --sweep that does."""
    before = ""
    for argument in arguments:
        flag, _, value = argument.partition("=")
        swept = argument if before == "--sweep" else value if flag == "--sweep" else ""
        if field := swept_field(swept):
            yield field, True
        if flag.startswith("--") and before != "--sweep":
            yield flag.removeprefix("--").replace("-", "_"), False
        before = argument


def swept_field(item: str) -> str:
    """The field that an item of --sweep names: of `train.learning-rate=1e-3` with underscores."""
    return item.partition("=")[0].strip().removeprefix("--").replace("-", "_")


def _affirmed(name: str) -> str:
    """`model.remat` of `model.no_remat`, which is that flag with False."""
    return re.sub(r"(^|\.)no_", r"\1", name, count=1)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def fail(message: str) -> NoReturn:
    """Ends the process with one line, for a flag that is wrong."""
    sys.exit(_say(message, 2))


def _unboxed(text: str) -> str:
    """The message in the box that tyro draws (it offers no other way), without its advice."""
    lines = [line.strip("│╭╮╰╯ ") for line in text.splitlines()]  # a box of spaces, in ASCII
    lines = [line for line in lines[1:] if line]  # without the title
    rules = [bool(set(line) <= {"─", "-"}) for line in lines]
    if rules and rules[0]:
        lines, rules = lines[1:], rules[1:]
    end = rules.index(True) if True in rules else None
    message = " ".join(lines[:end]) or " ".join(text.split())
    # "Error parsing config.train: train.steps must ..." names the place twice.
    place, colon, rest = message.partition(": ")
    return rest if colon and place.startswith("Error parsing") and "--" not in place else message


def _preset(arguments: list[str], names: Sequence[str]) -> tuple[str, list[str]]:
    """The preset that the arguments name, and the other arguments."""
    named, others, rest = [], [], iter(arguments)
    for argument in rest:
        flag, equals, value = argument.partition("=")
        if flag == "--preset":
            named.append(value if equals else next(rest, ""))
        else:
            others.append(argument)
    if len(named) > 1:
        fail(f"--preset is given twice: {' and '.join(named)}")
    (chosen,) = named or names[:1]
    if chosen not in names:
        listed = ", ".join(names)
        fail(f"unknown preset {chosen!r}{nearest(chosen, names)}; presets: {listed}")
    return chosen, others


_TYPES = tyro.constructors.ConstructorRegistry()


def _whole(text: str) -> int:
    """Whole numbers, 1e4 as well."""
    plain = text.replace("_", "")
    # Bounded, since 1e999999999 would take all memory.
    number = fractions.Fraction(plain) if re.fullmatch(r".+[eE]\+?\d{1,2}", plain) else int(plain)
    if number.denominator != 1:
        raise ValueError(f"{text} is no whole number")
    return int(number)


def _none(text: str) -> None:
    """None, as none and null as well."""
    if text.lower() not in ("none", "null"):
        raise ValueError(f"{text} is not None")


@_TYPES.primitive_rule
def _primitive(info: Any) -> Any:
    for kind, metavar, read in ((int, "INT", _whole), (type(None), "{None}", _none)):
        if info.type is kind:
            return tyro.constructors.PrimitiveConstructorSpec(
                nargs=1, metavar=metavar, instance_from_str=lambda texts, read=read: read(texts[0]),
                is_instance=lambda value, kind=kind: type(value) is kind,
                str_from_instance=lambda value: [str(value)],
            )  # fmt: skip
    return None


def _prog() -> str:
    if " " in sys.argv[0]:  # "drawjax sample"
        return sys.argv[0]
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    name = pathlib.Path(sys.argv[0]).name
    return f"python -m {spec.name.removesuffix('.__main__')}" if spec is not None else name
