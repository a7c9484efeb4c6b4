"""One fault of those of grid_faults.py, the one that takes all with it, on the smallest grid."""

import os

import pytest
from grid_faults import main


@pytest.mark.skipif(os.name != "posix", reason="kills are sent to process groups, which POSIX systems have")
def test_a_grid_whose_driver_is_killed_goes_on_to_the_bits_of_an_undisturbed_one(tmp_path):
    row = main(tmp_path, ["driver"], folds=0).iloc[0]
    assert row["exit_code"] == -9 and row["begun_again"] >= 1
    assert row["files"] > 20 and row["different"] == 0
