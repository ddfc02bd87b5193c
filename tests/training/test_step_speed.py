"""The comparison of generators' steps: every case has its row, against other code too; a wrong folder is refused."""

import pytest
from tests.step_speed import HERE, main


@pytest.mark.slow
def test_every_case_has_its_row_and_its_ratios(capsys):
    small = "generator=sit generator.batch_size=2"
    main([small, "generator=meanflow generator.batch_size=2", "--against", str(HERE), "--rounds", "1", "--steps", "1"])
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line]
    assert rows[0] == ["case", "ms a step", "there, and ours by theirs"]
    assert [row[0] for row in rows[2:]] == [f"`{small}`", "`generator=meanflow generator.batch_size=2`"]
    assert rows[2][1].endswith("(1.00x, 1.00 to 1.00)")
    assert all(float(cell.split()[0]) > 0 for row in rows[2:] for cell in row[1:])


def test_a_folder_without_the_package_is_refused_before_work(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--against", str(tmp_path)])
    assert "holds no src/ldbench. Give the folder of a checkout." in capsys.readouterr().err
