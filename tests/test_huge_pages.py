import os
import subprocess
import sys

import pytest

from drawjax import __main__


class _Restarted(Exception):
    pass


@pytest.fixture
def setting(tmp_path, monkeypatch):
    """The system's setting; starting again raises `_Restarted`."""
    path = tmp_path / "enabled"
    path.write_text("always [madvise] never\n")
    monkeypatch.setattr(__main__, "_SETTING", path)
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "experiments.x", "--flag"])
    monkeypatch.setenv("GLIBC_TUNABLES", "")  # and back after the test

    def execv(program, arguments):
        raise _Restarted(program, *arguments)

    monkeypatch.setattr(os, "execv", execv)
    return path


def test_a_command_starts_again_with_huge_pages(setting):
    command = [sys.executable, "-m", "experiments.x", "--flag"]
    with pytest.raises(_Restarted) as restarted:
        __main__.use_huge_pages()
    assert list(restarted.value.args) == [sys.executable, *command]
    assert os.environ["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
    __main__.use_huge_pages()  # once


def test_other_settings_of_glibc_stay(setting, monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=1")
    with pytest.raises(_Restarted):
        __main__.use_huge_pages()
    assert os.environ["GLIBC_TUNABLES"] == "glibc.malloc.check=1:glibc.malloc.hugetlb=1"


@pytest.mark.parametrize("text", ["[always] madvise never", "always madvise [never]", None])
def test_a_system_that_gives_them_to_all_or_nobody_is_left_alone(setting, text):
    setting.write_text(text) if text else setting.unlink()
    __main__.use_huge_pages()


def test_no_is_taken_for_an_answer(setting, monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0")
    __main__.use_huge_pages()


@pytest.mark.parametrize("program", ["", "-", "/dev/stdin", "/dev/fd/63"])
def test_a_program_that_can_be_read_once_is_not_started_again(setting, monkeypatch, program):
    monkeypatch.setattr(sys, "argv", [program, "--flag"])
    __main__.use_huge_pages()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of Linux")
def test_only_a_command_starts_again(tmp_path):
    # Were `import experiments` to do so, this would run twice.
    (tmp_path / "script.py").write_text("print('once')\nimport experiments.mnist_generation\n")
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py"], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": os.getcwd(), "GLIBC_TUNABLES": ""},
    )  # fmt: skip
    assert done.stdout == "once\n"
