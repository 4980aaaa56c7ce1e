import pytest

from tests.training import kill_test


@pytest.mark.slow
def test_a_run_killed_three_times_ends_with_the_same_bits(tmp_path):
    said = []
    kill_test.kill_test(tmp_path, kills=3, steps=90, show=said.append)
    assert len(said) == 4
    assert "SIGKILL in a save" in said[0]
    assert "SIGTERM after a save, exit code 143" in said[1] or "SIGTERM in a save" in said[1]
    assert "SIGKILL at the start" in said[2]
