import os
import platform
import subprocess
import sys

import pytest

from drawjax import huge_pages

needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a tunable of glibc")


@pytest.fixture
def restarts(monkeypatch):
    """What the process would have been replaced by."""
    calls = []
    monkeypatch.setattr(os, "execve", lambda *call: calls.append(call))
    monkeypatch.setattr(sys, "argv", ["-m", "--help"])
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "experiments.attention_zoom", "--help"])
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    return calls


@needs_glibc
def test_a_command_starts_again_with_other_tunables_kept(restarts, monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=1")
    huge_pages.use_huge_pages()
    ((program, argv, environment),) = restarts
    assert program == sys.executable
    assert argv == ["python", "-m", "experiments.attention_zoom", "--help"]
    assert environment["GLIBC_TUNABLES"] == "glibc.malloc.check=1:glibc.malloc.hugetlb=1"


def test_an_import_and_a_choice_of_the_user_are_left_alone(restarts, monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0")
    huge_pages.use_huge_pages()
    monkeypatch.delenv("GLIBC_TUNABLES")
    monkeypatch.setattr(sys, "argv", ["pytest"])
    huge_pages.use_huge_pages()
    assert restarts == []


@needs_glibc
def test_a_module_of_the_experiments_runs_with_the_tunable(tmp_path):
    package = tmp_path / "commands"
    package.mkdir()
    call = "from drawjax.huge_pages import use_huge_pages\nuse_huge_pages()\n"
    (package / "__init__.py").write_text(call)
    (package / "show.py").write_text(
        "import os, sys\nprint(os.environ['GLIBC_TUNABLES'], sys.argv[1:])"
    )
    environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), *sys.path])
    command = [sys.executable, "-m", "commands.show", "--flag", "a b"]
    out = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "glibc.malloc.hugetlb=1 ['--flag', 'a b']"
