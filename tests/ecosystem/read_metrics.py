"""Reads what moelab wrote about runs with the tools that it is written for, and compares every value with the log.

    python tests/ecosystem/read_metrics.py RUNS TENSORBOARD CSV

RUNS is a folder of runs; the others are those of `moelab export-metrics RUNS --to tensorboard` and `--to csv`.
"""

import json
import pathlib
import re
import sys

import numpy
import pandas
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def events(run):
    """The events of a log by kind, as pandas reads it."""
    frame = pandas.read_json(run / "metrics.jsonl", lines=True, precise_float=True)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(frame) == len(lines), f"{run}: pandas reads {len(frame)} of {len(lines)} lines"
    updates, evaluations = ([line for line in lines if line["kind"] == kind] for kind in ("update", "eval"))
    assert list(frame[frame.kind == "update"].train_ce) == [line["train_ce"] for line in updates], f"{run}: train_ce"
    assert list(frame[frame.kind == "eval"].val_ce) == [line["val_ce"] for line in evaluations], f"{run}: val_ce"
    return updates, evaluations


def arrays(run, updates):
    """Reads the array records by the line in the run's own README."""
    line = re.search(r"^records = (numpy\.fromfile.*)$", (run / "README.md").read_text(encoding="utf-8"), re.MULTILINE)[1]
    records = eval(line.replace('"series.bin"', "file"), {"numpy": numpy, "file": run / "series.bin"})
    of_updates = records[records["kind"] == 0]
    assert list(of_updates["update"]) == [line["update"] for line in updates], f"{run}: updates of the records"
    numpy.testing.assert_allclose(of_updates["expert_load"].sum(axis=2), 1.0, rtol=1e-5, err_msg=str(run))
    return of_updates


def board(folder, updates, evaluations, records):
    """Opens an event file as TensorBoard does."""
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()

    def equals(tag, steps, values):
        scalars = accumulator.Scalars(tag)
        assert [scalar.step for scalar in scalars] == steps, f"{folder}: steps of {tag}"
        assert [numpy.float32(scalar.value) for scalar in scalars] == [numpy.float32(value) for value in values], f"{folder}: {tag}"

    steps = [line["update"] for line in updates]
    for name in ("train_ce", "grad_norm", "lr_muon"):
        equals(f"train/{name}", steps, [line[name] for line in updates])
    equals("eval/val_ce", [line["update"] for line in evaluations], [line["val_ce"] for line in evaluations])
    for expert in range(records["expert_load"].shape[2]):
        equals(f"train/expert_load/layer 0/expert {expert}", steps, records["expert_load"][:, 0, expert])
    return len(accumulator.Tags()["scalars"])


def main():
    runs, tensorboard, csv = map(pathlib.Path, sys.argv[1:])
    table, long = pandas.read_csv(csv / "runs.csv").set_index("run"), pandas.read_csv(csv / "evaluations.csv")
    folders = sorted(path.parent for path in runs.glob("*/summary.json"))
    assert sorted(table.index) == [run.name for run in folders] and folders, "the rows of runs.csv are the runs"
    for run in folders:
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        updates, evaluations = events(run)
        tags = board(tensorboard / run.name, updates, evaluations, arrays(run, updates))
        assert table.final_val_ce[run.name] == summary["final_val_ce"], f"{run}: final_val_ce in runs.csv"
        rows = long[long.run == run.name]
        assert list(rows.val_ce) == [line["val_ce"] for line in evaluations], f"{run}: evaluations.csv"
        print(f"{run.name}: {len(updates)} updates, {len(evaluations)} evaluations, {tags} tags")
    print(f"{len(folders)} runs read: pandas {pandas.__version__}, numpy {numpy.__version__}")


if __name__ == "__main__":
    main()
