"""The command `drawjax`, and `python -m drawjax`: all commands under one name."""

import importlib.metadata
import importlib.util
import pkgutil
import runpy
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from drawjax import flags, huge_pages

__all__ = ["main"]

_COMMANDS = {
    "train": "an experiment: `drawjax train mnist_generation --preset demo`",
    "sample": "draw with a model that comes with the package",
    "explore": "a local page: move the attention window, watch a model draw",
    "report": "a run's page, or one that compares runs",
    "prepare": "download an image set, or make one of a folder of pictures",
    "models": "the models that come with the package, and how good they are",
}
_MODULES = {  # with what it is configured by
    "sample": ("drawjax.sample", "SampleConfig"),
    "explore": ("drawjax.explore.__main__", "ExploreConfig"),
    "report": ("drawjax.report.__main__", "ReportConfig"),
    "prepare": ("drawjax.data.prepare", "PrepareConfig"),
    "models": ("drawjax.pretrained.listing", "ListingConfig"),
}
_EXPERIMENTS = "drawjax.experiments"


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Runs a command by its name; ends the process.

    Args:
      argv: the arguments; None: the process's.
    """
    if argv is None:
        huge_pages.use()
    arguments = list(sys.argv[1:] if argv is None else argv)
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
        module, _ = _MODULES[_known(name, _COMMANDS, "command")]
        _run(module, ["drawjax", name], rest)
    sys.exit(0)


def _train(arguments: list[str]) -> None:
    names = _experiments()
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage("drawjax train EXPERIMENT ...", names))
        return
    name = _known(arguments[0].replace("-", "_"), names, "experiment")
    _run(f"{_EXPERIMENTS}.{name}", ["drawjax", "train", name], arguments[1:])


def _experiments() -> dict[str, str]:
    """The experiments that are installed, with the first line of each."""
    if importlib.util.find_spec(_EXPERIMENTS) is None:
        flags.fail("drawjax is not installed: pip install drawjax, or `pip install -e .` here")
    package = importlib.import_module(_EXPERIMENTS)
    found = {}
    for module in pkgutil.iter_modules(package.__path__):
        spec = importlib.util.find_spec(f"{_EXPERIMENTS}.{module.name}")
        assert spec is not None
        assert spec.loader is not None
        source: Any = spec.loader
        line = source.get_source(spec.name).partition("\n")[0]
        found[module.name] = line.strip('"').rstrip(".")
    return found


def _known(name: str, names: Any, what: str) -> str:
    if name not in names:
        flags.fail(
            f"unknown {what} {name!r}{flags.nearest(name, list(names))}; there are: "
            f"{', '.join(names)}"
        )
    return name


def _run(module: str, command: list[str], arguments: list[str]) -> None:
    """Runs a module as `python -m` does, under another name."""
    sys.argv = [" ".join(command), *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=False)
    except ModuleNotFoundError as error:
        if str(error.name).startswith("drawjax"):
            raise
        flags.fail(f"{sys.argv[0]} needs {error.name}: pip install 'drawjax[train]'")


def _usage(call: str, names: dict[str, str]) -> str:
    width = max(map(len, names))
    lines = [f"  {name:{width}}  {line}" for name, line in names.items()]
    return "\n".join([f"usage: {call}", "", *lines])


def _print_completion(arguments: list[str]) -> None:
    import tyro

    from drawjax.launch import Options

    app, train = tyro.extras.SubcommandApp(), tyro.extras.SubcommandApp()
    for name, (module, config) in _MODULES.items():
        app.command(getattr(importlib.import_module(module), config), name=name)
    for name in _experiments():
        presets = importlib.import_module(f"{_EXPERIMENTS}.{name}").PRESETS
        everything: Any = type(flags.together(presets, Options()))
        train.command(everything, name=name)
    app.command(train, name="train")
    app.cli(prog="drawjax", args=["--tyro-print-completion", *arguments])


if __name__ == "__main__":
    main()
