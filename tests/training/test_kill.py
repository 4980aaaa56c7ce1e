import pytest

from tests.training import kill_test


@pytest.mark.slow
def test_a_run_killed_three_times_ends_with_the_same_bits(tmp_path):
    said = []
    kill_test.kill_test(tmp_path, kills=3, steps=90, pause=0.02, seed=0, show=said.append)
    assert len(said) == 4
    assert "SIGKILL during a save" in said[0]
    assert "SIGTERM" in said[1]
