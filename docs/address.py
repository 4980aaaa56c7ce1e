"""Writes the repository's public address where it belongs, for a release.

    python docs/address.py https://github.com/OWNER/drawjax

README.md gets links and pictures that work on a package index too, pyproject.toml the project's
URLs, CITATION.cff the repository, notebooks that install drawjax the place to install it from, and
links that open them on Colab and Kaggle. Given again, with another address as well, it replaces the
first.
"""

import functools
import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).parents[1]
_PICTURES = (".png", ".gif")


def readme(text: str, address: str) -> str:
    """README.md with absolute links: pictures as files, pages as GitHub shows them."""

    def link(match: re.Match[str]) -> str:
        target = match[2].removeprefix(match[1] or "")
        if "://" in target or target.startswith("#"):
            return match[0]
        kind = "raw" if target.partition("#")[0].endswith(_PICTURES) else "blob"
        return f"]({address}/{kind}/main/{target})"

    return re.sub(r"\]\((https://[^)\s]+?/(?:raw|blob)/main/)?([^)\s]+)\)", link, text)


def project(text: str, address: str) -> str:
    """pyproject.toml with the project's URLs."""
    text = re.sub(r"\[project\.urls\]\n(?:\w+ = .*\n)*\n", "", text)
    urls = {
        "Homepage": address,
        "Documentation": f"{address}/tree/main/docs",
        "Issues": f"{address}/issues",
        "Changelog": f"{address}/blob/main/CHANGELOG.md",
    }
    table = "".join(f'{name} = "{url}"\n' for name, url in urls.items())
    return text.replace("[project.scripts]\n", f"[project.urls]\n{table}\n[project.scripts]\n")


def citation(text: str, address: str) -> str:
    """CITATION.cff with the repository."""
    text = re.sub(r"repository-code: .*\n", "", text)
    return text.replace("license: ", f'repository-code: "{address}"\nlicense: ', 1)


def notebook(text: str, address: str, path: str) -> str:
    """A notebook that opens elsewhere, from its second cell's install and links under its title."""
    page = json.loads(text)
    title, install = (cell["source"] for cell in page["cells"][:2])
    colab = address.replace("https://github.com/", "https://colab.research.google.com/github/")
    links = (
        f"Open it on [Colab]({colab}/blob/main/{path}) or "
        f"[Kaggle](https://kaggle.com/kernels/welcome?src={address}/blob/main/{path}); "
        f"more in [the guides]({address}/tree/main/docs/guides).\n"
    )
    title[1:3] = ["\n", links, *([] if title[2].startswith("Open it on ") else title[1:3])]
    install[:] = [
        re.sub(r'"drawjax\[train\][^"]*"', f'"drawjax[train] @ git+{address}"', line)
        for line in install
    ]
    return json.dumps(page, indent=1, ensure_ascii=False) + "\n"


FILES = {"README.md": readme, "pyproject.toml": project, "CITATION.cff": citation}
for _name in ("ten_minutes", "photograph", "own_pictures"):
    _path = f"docs/notebooks/{_name}.ipynb"
    FILES[_path] = functools.partial(notebook, path=_path)


def main(address: str) -> None:
    if not re.fullmatch(r"https://[\w.-]+(/[\w.-]+)+", address):
        sys.exit(f"error: {address!r} is no address like https://github.com/OWNER/drawjax")
    for name, change in FILES.items():
        (ROOT / name).write_text(change((ROOT / name).read_text(), address))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
