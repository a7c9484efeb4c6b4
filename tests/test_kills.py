"""Three kills of the twenty and more of kills.py."""

import os

import pytest
from kills import Training, kill_again_and_again


@pytest.mark.skipif(os.name != "posix", reason="kills are sent to process groups, which POSIX systems have")
def test_a_study_killed_at_random_ends_with_the_bits_of_an_undisturbed_one(tmp_path, cache):
    def begin(folder):
        return Training(folder, cache, "efficientnet", epochs=4)  # it has drop-path

    table = kill_again_and_again(begin, tmp_path, kills=3, seed=0)
    assert table["kept_equal"].tolist() == [True] * 3
    assert table["end_equal"].tolist() == [True] * 3
