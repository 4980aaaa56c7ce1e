"""Every fenced block of README.md and of docs/ is run, or says in the page's source why it is not.

What is done with a block goes by its language and by the HTML comment on the line before it:

* `python`: run, all of a page in order and in one namespace, in a folder of the page's own, with an
  empty home folder and no TFDS_DATA_DIR.
* `text` right behind a `python` block: what that block prints, compared.
* `bash`, `sh`: each command is checked. `pip install` has to name extras of pyproject.toml; `python
  -m experiments.NAME`, `python -m drawjax.NAME` and `drawjax COMMAND` are read by the command's own
  parser, every flag, preset, value and field of a sweep; `pytest` is what is running. Any other
  command fails.
* `<!-- run -->` before a shell block: its commands are run, among the page's other blocks.
* `<!-- run shortened -->`: the same, training with a tiny model for two steps.
* `<!-- not run: REASON -->`: not run; Python still has to compile, and project commands inside are
  still read by their parsers.
* `yaml`, `json`: parsed; project commands inside are read by their parsers.
* `{name}` is a directive of the site, which the site's strict build checks.

Commands in inline code are read by their parsers too, and names of the library must exist.
"""

import contextlib
import doctest
import functools
import importlib
import io
import json
import os
import re
import runpy
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Sequence

import matplotlib
import pytest
import yaml

from drawjax import cli, sweeps
from tests.docs import pages
from tests.docs.pages import PAGES, ROOT, Block

TINY = (
    "--model.num-glimpses", "2", "--model.hidden-size", "8", "--model.latent-size", "2",
    "--train.steps", "2",
    "--train.batch-size", "8", "--train.log-every", "1", "--train.eval-every", "1",
    "--samples", "16",
)  # fmt: skip
RUN, SHORTENED, NOT_RUN = "run", "run shortened", "not run: "


class _Parsed(Exception):
    """Raised in place of what a command does after reading its flags."""


def check_project_command(module: str, arguments: list[str]) -> None:
    """Reads a command's arguments with its own parser, and does nothing else."""
    _check_project_command(module, tuple(arguments))


@functools.cache  # many commands stand on several pages
def _check_project_command(module: str, arguments: tuple[str, ...]) -> None:
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            if not module.startswith("experiments."):
                _read_flags(module, arguments)
            elif module == "experiments.attention_zoom":
                cli.parse(importlib.import_module(module).PRESETS, arguments)
            else:
                presets = importlib.import_module(module).PRESETS
                config, options = cli.parse(presets, arguments, options=cli.Options())
                sweeps.expand(config, options.sweep)
    except SystemExit as stop:
        assert not stop.code, f"python -m {module} {' '.join(arguments)}: {said.getvalue()}"


def _read_flags(module: str, arguments: Sequence[str]) -> None:
    """Runs a module as a command up to where its flags are read."""

    def only_read(function, default, argv=None, *, description=None):
        cli.parse(default, argv, description=description)
        raise _Parsed

    with (
        pytest.MonkeyPatch.context() as patch,
        warnings.catch_warnings(),
        contextlib.suppress(_Parsed),
    ):
        patch.setattr(cli, "command", only_read)
        patch.setattr(sys, "argv", [module, *arguments])
        warnings.simplefilter("ignore", RuntimeWarning)  # the module may be imported already
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        raise AssertionError(f"{module} reads no flags")


def check_pip(arguments: list[str]) -> None:
    """A `pip install` of this project, with extras that there are."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert arguments[:2] == ["install", "-e"], arguments
    (what,) = arguments[2:]
    match = re.fullmatch(r"\.(?:\[([\w,]+)\])?", what)
    assert match, f"pip install {what}"
    extras = match[1].split(",") if match[1] else []
    assert set(extras) <= set(project["optional-dependencies"]), extras


def check_shell(block: Block) -> None:
    """Checks every command of a block without running it."""
    for words in pages.shell_commands(block.code):
        if words[0] == "pip":
            check_pip(words[1:])
        elif words[:2] == ["python", "-m"]:
            check_project_command(words[2], [word for word in words[3:] if word != "..."])
        elif words[0] == "drawjax":
            check_project_command(*pages.module_of(words[1:]))
        else:
            assert words == ["pytest"], f"{block}: what to do with {words}?"


def run_shell(block: Block, folder) -> None:
    """Runs every command of a block; those that train do so with a tiny model for two steps."""
    for words in pages.shell_commands(block.code):
        if words[0] == "drawjax":
            module, arguments = pages.module_of(words[1:])
            words = ["python", "-m", module, *arguments]
        assert words[:2] == ["python", "-m"], f"{block}: only the project's commands are run"
        if block.remark == SHORTENED and words[2].startswith("experiments."):
            words += TINY if "--mode" not in words else ()
        done = subprocess.run(
            [sys.executable, *words[1:]],
            cwd=folder, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(ROOT), "MPLCONFIGDIR": matplotlib.get_configdir()},
        )  # fmt: skip
        assert done.returncode == 0, f"{block}: {done.stderr[-2000:]}"


def run_python(block: Block, namespace: dict) -> str:
    """Runs a block; returns what it prints."""
    said = io.StringIO()
    code = "\n" * (block.line - 1) + block.code  # so that a traceback names the page's line
    with contextlib.redirect_stdout(said):
        exec(compile(code, str(block.page), "exec"), namespace)
    return said.getvalue()


def check_output(block: Block, printed: str | None) -> None:
    assert printed is not None and block.follows, f"{block}: no python block stands before it"
    checker = doctest.OutputChecker()
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert checker.check_output(block.code, printed, flags), f"{block}: printed {printed!r}"


def check_commands_inside(text: str) -> None:
    for module, arguments in pages.project_commands(text):
        check_project_command(module, arguments)


def run_page(page, folder, text: str | None = None) -> None:
    """Does with each block what the head of this file says."""
    namespace: dict = {"__name__": "guide"}
    printed = None  # by the block before, if it was Python and was run
    for block in pages.blocks(page, text):
        before, printed = printed, None
        if block.remark.startswith(NOT_RUN) and block.remark != NOT_RUN:
            if block.language == "python":
                compile(block.code, str(page), "exec")
            check_commands_inside(block.code)
        elif block.language == "python":
            printed = run_python(block, namespace)
        elif block.language == "text":
            check_output(block, before)
        elif block.language in ("bash", "sh"):
            if block.remark in (RUN, SHORTENED):
                run_shell(block, folder)
            else:
                check_shell(block)
        elif block.language == "yaml":
            for string in pages.strings(yaml.safe_load(block.code)):
                check_commands_inside(string)
        elif block.language == "json":
            json.loads(block.code)
        else:
            assert block.language.startswith("{"), f"{block}: neither run nor a reason why not"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder to work in, and an empty home; no prepared sets."""
    for name in ("work", "home"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    return tmp_path / "work"


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[] if page.name == "README.md" else pytest.mark.slow)
        for page in PAGES
    ],
    ids=pages.name,
)
def test_every_block_is_run(page, folder):
    run_page(page, folder)


@pytest.mark.parametrize("page", PAGES, ids=pages.name)
def test_commands_in_inline_code_are_read_by_their_parsers(page):
    for code in pages.inline_code(page):
        check_commands_inside(code)


@pytest.mark.parametrize("page", PAGES, ids=pages.name)
def test_names_and_files_in_inline_code_exist(page):
    for code in pages.inline_code(page):
        if re.fullmatch(r"drawjax(\.\w+)+", code):
            pages.resolve(code)
        elif re.fullmatch(
            r"(drawjax|experiments|examples|tests|docs|benchmarks)/[\w/]+\.\w+", code
        ):
            assert (ROOT / code).exists(), code


def test_links_of_the_readme_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / "README.md").read_text()):
        assert "://" in target or (ROOT / target).exists(), target


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("```python\nassert 1 == 2\n```\n", AssertionError),
        ("```python\nprint(1)\n```\n\n```text\n2\n```\n", AssertionError),
        ("```python\nprint(1)\n```\n\nWords.\n\n```text\n1\n```\n", AssertionError),
        ("```bash\nrm -r /\n```\n", AssertionError),
        ("```bash\npip install -e '.[tests]'\n```\n", AssertionError),
        ("```bash\npython -m experiments.mnist_generation --preset dmeo\n```\n", AssertionError),
        ("```bash\npython -m experiments.mnist_generation --model.unit 3\n```\n", AssertionError),
        ("```bash\npython -m experiments.mnist --preset demo\n```\n", ModuleNotFoundError),
        ("```bash\npython -m drawjax.sample --nmu 3\n```\n", AssertionError),
        ("```bash\ndrawjax sample --nmu 3\n```\n", AssertionError),
        ("```bash\ndrawjax smaple\n```\n", KeyError),
        ("```bash\ndrawjax train mnist\n```\n", ModuleNotFoundError),
        ("```sh\npython -m experiments.svhn_generation --sweep train.rate=1,2\n```\n", ValueError),
        ("<!-- not run: slow -->\n```sh\nsrun python -m drawjax.sample -x\n```\n", AssertionError),
        ("<!-- not run:  -->\n```ruby\nputs 1\n```\n", AssertionError),
        ("```\nputs 1\n```\n", AssertionError),
        ("```yaml\na: [python -m drawjax.sample --nmu 3]\n```\n", AssertionError),
        ("```python\n1\n", ValueError),
    ],
)
def test_a_page_that_does_not_hold_fails(folder, text, error):
    with pytest.raises(error):
        run_page(ROOT / "README.md", folder, text)


@pytest.mark.parametrize(
    "text",
    [
        "<!-- not run: needs Ruby -->\n```ruby\nputs 1\n```\n",
        "```python\nx = 1\n```\n\n```python\nprint(x, 0.123)\n```\n\n```text\n1 0.1...\n```\n",
        "```bash\npip install -e '.[test,lint]' && pytest  # all of it\n```\n",
        "```bash\ndrawjax train mnist_generation --preset demo\n```\n",
        "```bash\npython -m drawjax.data.prepare mnist \\\n    --data-dir there\n```\n",
    ],
)
def test_a_page_that_holds_passes(folder, text):
    run_page(ROOT / "README.md", folder, text)
