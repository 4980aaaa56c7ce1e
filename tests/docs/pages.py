"""Pages of Markdown taken apart: fenced blocks, inline code, the commands in both."""

import dataclasses
import importlib
import pathlib
import re
import shlex
from collections.abc import Iterator
from typing import Any

from drawjax import cli

ROOT = pathlib.Path(__file__).parents[2]
PAGES = sorted(
    [ROOT / "README.md", ROOT / "examples" / "README.md", *(ROOT / "docs").rglob("*.md")]
)

_FENCE = re.compile(r"^( *)(```+|~~~+)(.*)$")
_REMARK = re.compile(r"^<!-- (.+?) -->$")
_COMMAND = re.compile(r"\bpython -m ((?:experiments|drawjax)(?:\.\w+)*)(?= |$)([^`'|;&)\n]*)", re.M)


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block."""

    page: pathlib.Path
    line: int  # of its first line of code, from 1
    language: str
    code: str
    remark: str  # the HTML comment on the line before it; else empty
    follows: bool  # whether nothing but blank lines is between it and the block before

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def name(page: pathlib.Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: pathlib.Path, text: str | None = None) -> list[Block]:
    """The fenced blocks of a page in order."""
    lines = (page.read_text() if text is None else text).splitlines()
    found: list[Block] = []
    opened: tuple[str, str, str, int, bool] | None = None
    between = True
    for number, line in enumerate(lines):
        fence = _FENCE.match(line)
        if opened is None:
            if fence:
                above = _REMARK.match(lines[number - 1]) if number else None
                opened = (*fence.groups(), number + 1, between and bool(found))
            elif line.strip():
                between = False
        elif fence and fence[2] == opened[1] and not fence[3].strip():
            indent, _, language, start, follows = opened
            code = "\n".join(row.removeprefix(indent) for row in lines[start:number]) + "\n"
            remark = above[1] if above else ""
            found.append(Block(page, start + 1, language.strip(), code, remark, follows))
            opened, between = None, True
    if opened is not None:
        raise ValueError(f"{page}:{opened[3]}: a block is not closed")
    return found


def inline_code(page: pathlib.Path) -> list[str]:
    """What stands between single backticks, outside fenced blocks."""
    kept, inside = [], False
    for line in page.read_text().splitlines():
        if _FENCE.match(line):
            inside = not inside
        elif not inside:
            kept.append(line)
    spans = re.findall(r"(?<!`)`([^`]+)`(?!`)", "\n".join(kept))
    return [" ".join(span.split()) for span in spans]


def project_commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Module and arguments of each `python -m experiments...` and `python -m drawjax...`.

    Variables of the shell become 0; a trailing "..." is dropped. Commands with a placeholder in
    capitals are left out.
    """
    joined = re.sub(r"\\\n\s*", " ", text)
    for module, rest in _COMMAND.findall(joined):
        rest = re.sub(r"\$\w+", "0", rest.split(" #")[0])
        arguments = [word for word in shlex.split(rest) if word != "..."]
        plain = [
            word for word in [module.split(".")[-1], *arguments] if re.match(r"[A-Z]{2}", word)
        ]
        if not plain:
            yield module, arguments


def module_of(words: list[str]) -> tuple[str, list[str]]:
    """Module and arguments of `drawjax WORDS`."""
    if words[0] == "train":
        return f"experiments.{words[1]}", words[2:]
    module, *_ = cli._MODULES[words[0]]
    return module.removesuffix(".__main__"), words[1:]


def shell_commands(code: str) -> list[list[str]]:
    """The simple commands of a shell block, as words."""
    joined = re.sub(r"\\\n\s*", " ", code)
    commands = []
    for line in joined.splitlines():
        words: list[str] = []
        for word in shlex.split(line, comments=True):
            if word == "&&":
                commands.append(words)
                words = []
            else:
                words.append(word)
        commands.append(words)
    return [words for words in commands if words]


def strings(tree: Any) -> Iterator[str]:
    """All strings of a tree of dicts and lists."""
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from strings(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from strings(value)


def resolve(dotted: str) -> Any:
    """The object of a dotted name of the library.

    Raises:
      AttributeError: if there is none.
    """
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part)
        return found
    raise AttributeError(dotted)
