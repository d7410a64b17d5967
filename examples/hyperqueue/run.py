"""Makes the runs of a study with HyperQueue: pip install hyperqueue==0.27.0

    moelab suite plan STUDY.toml --out FOLDER
    python examples/hyperqueue/run.py FOLDER                      # a local cluster of two workers
    python examples/hyperqueue/run.py FOLDER --server ~/.hq-server   # the workers of a running `hq server`

Each task is `moelab run --plan FOLDER/plan.jsonl --index I`, which does nothing if the run is made, so tasks may be repeated.
When the runs are made, `moelab suite promote` decides which arms continue and which repeats are added; its runs are submitted
until nothing is left to decide. A run that fails is reported and does not keep the others from being made.
"""

import argparse
import json
import pathlib
import subprocess
import sys

from hyperqueue import Client, Job, LocalCluster
from hyperqueue.cluster import WorkerConfig


def make_runs(client, moelab, folder):
    """Submits a task for each run of the plan and waits for them."""
    runs = [json.loads(line) for line in (folder / "plan.jsonl").read_text().splitlines()]
    job = Job(name=folder.name, max_fails=None, default_workdir=pathlib.Path.cwd())
    logs = folder.resolve() / "tasks"
    logs.mkdir(exist_ok=True)
    for run in runs:
        command = [moelab, "run", "--plan", str(folder / "plan.jsonl"), "--index", str(run["index"])]
        output = str(logs / run["id"])
        # A worker that dies takes no run with it: the task starts again and resumes from the newest checkpoint.
        job.program(command, name=run["id"], stdout=output + ".out", stderr=output + ".err", crash_limit=5)
    client.wait_for_jobs([client.submit(job)], raise_on_error=False)


def lines(*command):
    """The lines that a command prints, each a JSON value."""
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return [json.loads(line) for line in output.splitlines()]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path, help="the folder of the study's runs")
    parser.add_argument("--server", type=pathlib.Path, help="the folder of a running server; by default a local cluster is started")
    parser.add_argument("--workers", type=int, default=2, help="workers of the local cluster")
    parser.add_argument("--moelab", default="moelab", help="the program")
    args = parser.parse_args()

    cluster = None
    if args.server is None:
        cluster = LocalCluster()
        for _ in range(args.workers):
            cluster.start_worker(WorkerConfig(cores=1))
    client = Client(args.server) if cluster is None else cluster.client()
    suite = [args.moelab, "suite"]
    while True:
        make_runs(client, args.moelab, args.folder)
        decided = lines(*suite, "promote", str(args.folder), "--json")
        print(f"{len(decided)} decisions", file=sys.stderr)
        if not decided:
            break
    if cluster is not None:
        cluster.stop()
    rows = lines(*suite, "status", str(args.folder), "--json")
    failed = [row["run"] for row in rows if "failed" in row["status"]]
    print("failed: " + (", ".join(failed) or "none"), file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
