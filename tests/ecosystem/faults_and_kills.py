"""Runs one plan twice, on local slots and with HyperQueue, with runs that fail and with kills, and accounts for every run.

    python tests/ecosystem/faults_and_kills.py --moelab target/release/moelab --arms 10 --seeds 20 --kills 5

Local slots: a tenth of the runs fails. By default they cannot be opened, in turn because a file is where their folder should be and
because the folder has a README of something else; with a debug build `--fault eio` and `--fault panic` make them fail while they
write their log. The coordinator (`moelab suite run --slots 2`) is killed at random times and started again. HyperQueue: the same plan
and faults, on two workers, by `examples/hyperqueue/run.py`, which is killed as well. Then the faults are repaired and the runs that
failed are tried again.

It ends with 1 unless, of both engines: every planned run is either completed or failed by the injected fault; no run was started
again after it was over; no update is in a log twice, unless the log says that the run went back; and the tables are equal, bit by bit.
HyperQueue is left out if its package is missing (`pip install -r tests/ecosystem/requirements.txt`), or with `--engines slots`.
"""

import argparse
import csv
import importlib.util
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

BASE = (pathlib.Path(__file__).parent / "../helpers/tiny.toml").read_text()
# Columns of results.csv that say how fast a run was, not what it found.
OF_TIME = ["tokens_per_second"]
# Faults that a debug build injects into the writes of a run's log.
OF_DEBUG = ["eio", "panic"]
EXAMPLE = pathlib.Path(__file__).resolve().parents[2] / "examples/hyperqueue/run.py"


class Study:
    """A study in a folder of its own."""

    def __init__(self, moelab, folder, arms, seeds, fault, log):
        self.fault, self.environment = fault, dict(os.environ)
        self.moelab, self.folder, self.log = moelab, folder, log
        self.file, self.runs = folder / "study.toml", folder / "runs"
        folder.mkdir()
        (folder / "base.toml").write_text(BASE)
        others = "".join(f"[arms.b{i}]\nset = ['model.balance.coefficient=0.{i:02}']\n" for i in range(2, arms + 1))
        self.file.write_text(f'question = "Which balance coefficient?"\nbase = "base.toml"\nrepeats = {seeds}\n{others}')
        self.plan = self.lines("plan", "--json")
        self.ids = [run["id"] for run in self.plan]

    def command(self, verb, *more):
        return [self.moelab, "suite", verb, str(self.file), "--out", str(self.runs), *more]

    def lines(self, verb, *more):
        output = subprocess.run(self.command(verb, *more), check=True, stdout=subprocess.PIPE, stderr=self.log, text=True).stdout
        return [json.loads(line) for line in output.splitlines()]

    def obstruct(self, runs):
        if self.fault in OF_DEBUG:
            self.environment["MOELAB_FAULT_RUNS"] = f"{self.fault}:{','.join(runs)}"
            return
        for place, run in enumerate(runs):
            path = self.runs / run
            if self.is_foreign(place):
                path.mkdir()
                path = path / "README.md"
            path.write_text("not of moelab\n")

    def is_foreign(self, place):
        return self.fault == "foreign" or self.fault == "both" and place % 2 == 1

    def repair(self, runs):
        if self.fault in OF_DEBUG:
            del self.environment["MOELAB_FAULT_RUNS"]
            return
        for place, run in enumerate(runs):
            path = self.runs / run
            if self.is_foreign(place):
                shutil.rmtree(path)
            else:
                path.unlink()

    def status(self):
        return {row["run"]: row for row in self.lines("status", "--json")}

    def table(self):
        """The rows of results.csv by run, without what depends on the clock."""
        subprocess.run(self.command("report"), check=True, stdout=self.log, stderr=self.log)
        with open(self.runs / "results.csv", newline="", encoding="utf-8") as file:
            return {row["run"]: {key: row[key] for key in row if key not in OF_TIME} for row in csv.DictReader(file)}


def killed_and_started_again(start, made, runs, kills, draw):
    """Starts a coordinator, kills it at a random time, and starts it again; lets the last one end. Returns its exit code and the kills."""
    done = 0
    while True:
        process = start()
        if done < kills:
            # The runs that are left, in equal parts for the kills that are left.
            after = made() + draw.randint(1, max(1, (runs - made()) // (kills - done + 1)))
            while process.poll() is None and made() < after:
                time.sleep(0.01)
            time.sleep(draw.random() * 0.5)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                done += 1
                print(f"  kill {done}: after {made()} of {runs} runs", flush=True)
                continue
        return process.wait(), done


def over_twice(events):
    """Runs that were started after they were over, in the events of the coordinators in order."""
    over, found = set(), []
    for event in events:
        if event["event"] == "run_started" and event["run"] in over:
            found.append(event["run"])
        if event["event"] == "run_ended" and ("ended" in event["status"] or "failed" in event["status"]):
            over.add(event["run"])
    return found


def repeated_updates(log):
    """Updates that a log has twice although the run did not go back between them."""
    last, found = 0, []
    for line in log.read_text().splitlines():
        event = json.loads(line)
        if event["kind"] == "rewound":
            last = 0
        if event["kind"] == "update":
            if event["update"] <= last:
                found.append(event["update"])
            last = event["update"]
    return found


def check(holds, text, failures):
    print(f"  {'ok    ' if holds else 'FAILED'}  {text}", flush=True)
    if not holds:
        failures.append(text)


def account(study, broken, failures):
    """Checks that every run is accounted for while the faults are there, and prints the numbers. Returns status and losses by run."""
    status = study.status()
    check(sorted(status) == sorted(study.ids) and len(set(study.ids)) == len(study.ids), f"{len(status)} runs, each in the plan once", failures)
    completed = [run for run, row in status.items() if row["status"] == {"ended": "completed"}]
    failed = [run for run, row in status.items() if "failed" in row["status"]]
    check(sorted(failed) == sorted(broken), f"{len(failed)} failed: those with the fault", failures)
    check(len(completed) + len(failed) == len(status), f"{len(completed)} completed, none otherwise", failures)
    summaries = {run: study.runs / run / "summary.json" for run in status}
    ended = [run for run, path in summaries.items() if path.exists() and json.loads(path.read_text())["exit"] == "completed"]
    check(sorted(ended) == sorted(completed), f"{len(ended)} folders with a result", failures)
    twice = {run: repeated_updates(study.runs / run / "metrics.jsonl") for run in completed}
    check(not any(twice.values()), "no update is in a log twice without a note that the run went back", failures)
    return {run: (row["status"] if "ended" in row["status"] else "failed", row["updates"], row["final_val_ce"], row["best_val_ce"]) for run, row in status.items()}


def complete(study, failures):
    status = study.status()
    completed = [run for run, row in status.items() if row["status"] == {"ended": "completed"}]
    check(len(completed) == len(study.ids), f"{len(completed)} of {len(study.ids)} completed once the faults are repaired", failures)
    return study.table()


def on_slots(study, broken, kills, draw, failures):
    print(f"local slots: {len(study.ids)} runs, {len(broken)} with a fault, {kills} kills", flush=True)
    study.obstruct(broken)
    events = study.folder / "events.jsonl"

    def start(*more):
        with open(events, "a", encoding="utf-8") as file:
            return subprocess.Popen(study.command("run", "--slots", "2", "--json", *more), stdout=file, stderr=study.log, start_new_session=True, env=study.environment)

    def made():
        return sum((study.runs / run / "summary.json").exists() for run in study.ids)

    begun = time.monotonic()
    code, done = killed_and_started_again(start, made, len(study.ids) - len(broken), kills, draw)
    check(done == kills, f"{done} kills of the coordinator", failures)
    check(code == 2, f"the last coordinator ends with {code}: runs failed", failures)
    lines = [line for line in events.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    # A kill may have cut a line, and the next coordinator has gone on in it.
    whole = []
    for line in lines:
        try:
            whole.append(json.loads(line))
        except ValueError:
            pass
    whole = [event for event in whole if "event" in event]
    check(not over_twice(whole), "no run was started again after it was over", failures)
    accounted = account(study, broken, failures)
    before = {run: (study.runs / run / "metrics.jsonl").stat().st_mtime_ns for run in study.ids if run not in broken}
    study.repair(broken)
    check(start("--retry-failed").wait() == 0, "the runs that failed are tried again, and made", failures)
    check(before == {run: (study.runs / run / "metrics.jsonl").stat().st_mtime_ns for run in before}, "the others are not touched", failures)
    table = complete(study, failures)
    print(f"  {time.monotonic() - begun:.0f} s", flush=True)
    return accounted, table


def with_hyperqueue(study, broken, kills, draw, failures):
    print(f"HyperQueue: {len(study.ids)} runs, {len(broken)} with a fault, 2 workers, {kills} kills", flush=True)
    study.obstruct(broken)

    def start():
        command = [sys.executable, str(EXAMPLE), str(study.runs), "--moelab", study.moelab]
        return subprocess.Popen(command, stdout=study.log, stderr=study.log, start_new_session=True, env=study.environment)

    def made():
        return sum((study.runs / run / "summary.json").exists() for run in study.ids)

    begun = time.monotonic()
    code, done = killed_and_started_again(start, made, len(study.ids) - len(broken), kills, draw)
    check(done == kills, f"{done} kills of the script, its server and its workers", failures)
    check(code == 1, f"the script ends with {code}: runs failed", failures)
    accounted = account(study, broken, failures)
    before = {run: (study.runs / run / "metrics.jsonl").stat().st_mtime_ns for run in study.ids if run not in broken}
    study.repair(broken)
    check(start().wait() == 0, "the runs that failed are tried again, and made", failures)
    check(before == {run: (study.runs / run / "metrics.jsonl").stat().st_mtime_ns for run in before}, "the others are not touched", failures)
    table = complete(study, failures)
    print(f"  {time.monotonic() - begun:.0f} s", flush=True)
    return accounted, table


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moelab", required=True, help="the program")
    parser.add_argument("--arms", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--kills", type=int, default=1)
    parser.add_argument("--engines", default="slots,hyperqueue")
    parser.add_argument("--fault", choices=["file", "foreign", "both", *OF_DEBUG], default="both")
    parser.add_argument("--out", type=pathlib.Path, help="a new folder, which is kept; by default a temporary one")
    parser.add_argument("--draw", type=int, default=random.randrange(10**6), help="seed of the times of the kills")
    args = parser.parse_args()
    engines = args.engines.split(",")
    if "hyperqueue" in engines and importlib.util.find_spec("hyperqueue") is None:
        print("HyperQueue is left out: its package is missing (pip install -r tests/ecosystem/requirements.txt)")
        engines.remove("hyperqueue")
    moelab = str(pathlib.Path(args.moelab).resolve())
    draw, failures, found = random.Random(args.draw), [], {}
    print(f"--draw {args.draw}")
    with tempfile.TemporaryDirectory() as temporary:
        out = args.out or pathlib.Path(temporary)
        out.mkdir(parents=True, exist_ok=True)
        with open(out / "log.txt", "w", encoding="utf-8") as log:
            broken = None
            for engine in engines:
                study = Study(moelab, (out / engine).resolve(), args.arms, args.seeds, args.fault, log)
                if broken is None:
                    broken = sorted(draw.sample(study.ids, max(1, len(study.ids) // 10)))
                run = {"slots": on_slots, "hyperqueue": with_hyperqueue}[engine]
                found[engine] = run(study, broken, args.kills, draw, failures)
    if len(found) == 2:
        (slots, slots_table), (hyperqueue, hyperqueue_table) = found["slots"], found["hyperqueue"]
        check(slots == hyperqueue, "status and losses of both engines are equal while the faults are there", failures)
        check(slots_table == hyperqueue_table, f"the tables of both engines are equal: {len(slots_table)} rows, but for {', '.join(OF_TIME)}", failures)
    print(f"{len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
