"""What was measured on this machine: measured, kept, read by other processes, exported, imported, dropped, refused."""

import json
import subprocess
import sys

import pytest
from command_line import run

import alexnet_np as anp
from alexnet_np.kernels import choices, tuning
from alexnet_np.kernels.choices import Row
from alexnet_np.measure import tuning as measuring


@pytest.fixture(autouse=True)
def own_file(tmp_path, monkeypatch):
    monkeypatch.setenv("ALEXNET_NP_HOME", str(tmp_path / "home"))
    yield
    choices.use_measured([])


ROW = Row("direct", kernel=3, stride=1, OH=13, batch=[2, 1 << 30], why="measured")


def in_another_process():
    code = (
        "from alexnet_np.kernels import choices; print(*(row.as_dict() for row in choices.measured('cpu')), sep='\\n')"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_what_is_kept_is_read_by_other_processes_and_can_be_dropped():
    assert in_another_process().strip() == "" and choices.rows_here() == []
    choices.keep([ROW])
    assert "'kernel': 3" in in_another_process()
    assert [row.as_dict() for row in choices.rows_here()] == [ROW.as_dict()]
    assert "measured" in anp.choices()
    assert choices.drop() and not choices.drop()
    assert in_another_process().strip() == ""


def test_other_machines_and_other_numbers_of_threads_have_tables_of_their_own(monkeypatch):
    choices.keep([ROW])
    here = tuning.machine()
    monkeypatch.setattr(tuning, "machine", lambda: here + " more")
    assert choices.rows_here() == []
    choices.keep([])
    assert len(tuning.kept()) == 2 and len(tuning.kept()[here]) == 1


def test_files_go_from_machine_to_machine(tmp_path):
    choices.keep([ROW])
    file = tmp_path / "here.json"
    tuning.write(tuning.kept(), file)
    choices.drop()
    assert choices.take(file) == [tuning.machine()]
    assert len(choices.rows_here()) == 1


BAD = {
    "no JSON": "{",
    "another program's": '{"a": 1}',
    "a list": "[]",
    "rows that are none": json.dumps({"format": tuning.FORMAT, "machines": {"a": 3}}),
    "an unknown quantity": json.dumps({"format": tuning.FORMAT, "machines": {"a": [{"algorithm": None, "colour": 1}]}}),
    "an unknown way": json.dumps({"format": tuning.FORMAT, "machines": {"a": [{"algorithm": "magic"}]}}),
    "a value of no sort": json.dumps({"format": tuning.FORMAT, "machines": {"a": [{"algorithm": None, "kernel": {}}]}}),
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_corrupt_and_foreign_files_are_refused_in_one_line(tmp_path, text):
    file = tmp_path / "bad.json"
    file.write_text(text)
    choices.keep([ROW])
    with pytest.raises(anp.DataError, match=r"bad\.json: ") as error:
        choices.take(file)
    assert "\n" not in str(error.value)
    assert len(choices.rows_here()) == 1


def test_a_measurement_keeps_what_is_faster_and_says_why(monkeypatch):
    gains = iter([0.5, *[0.0] * 1000])
    monkeypatch.setattr(measuring, "faster", lambda *a: next(gains))
    told = []
    rows = anp.tune(60, width=1 / 8, told=told.append)
    assert len(rows) == 1 and "50% less" in rows[0].why and told[-1] == 1
    assert [row.as_dict() for row in choices.rows_here()] == [row.as_dict() for row in rows]
    assert choices.measured("cpu") == tuple(rows)


def test_every_candidate_can_be_compiled_and_timed():
    model = anp.alexnet(width=1 / 8, seed=0).eval()
    work = list(measuring.candidates(model))
    assert {batch for batch, _ in work} == set(measuring.BATCHES) and len(work) > 30
    first = [row for batch, row in work if batch == 1]
    gains = [measuring.faster(model, 1, row, []) for row in (first[1], first[-1])]
    assert all(-100 < gain < 1 for gain in gains)


def test_a_measurement_that_is_broken_off_keeps_nothing(monkeypatch):
    def fail(*a):
        raise KeyboardInterrupt

    choices.keep([ROW])
    monkeypatch.setattr(measuring, "faster", fail)
    with pytest.raises(KeyboardInterrupt):
        anp.tune(60, width=1 / 8)
    assert len(choices.rows_here()) == 1 and len(choices.measured("cpu")) == 1


@pytest.mark.parametrize("seconds", [0, -1, "long"])
def test_seconds_must_be_above_zero(seconds):
    with pytest.raises(anp.ArgumentError, match="seconds"):
        anp.tune(seconds)


def test_the_command_shows_exports_imports_and_drops(tmp_path):
    choices.keep([ROW])
    held = json.loads(run("tune", "--show", "--json").stdout)
    assert held["machine"] == tuning.machine() and held["rows"][0]["kernel"] == 3
    file = tmp_path / "out.json"
    run("tune", "--export", str(file))
    assert json.loads(run("tune", "--drop", "--json").stdout)["done"] == "dropped"
    assert not tuning.file().exists()
    run("tune", "--import", str(file))
    assert len(tuning.kept()) == 1
