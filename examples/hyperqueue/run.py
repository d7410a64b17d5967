"""Makes the runs of a study with HyperQueue: pip install hyperqueue==0.27.0

    moelab suite plan STUDY.toml --out FOLDER
    python examples/hyperqueue/run.py FOLDER                      # a local cluster of two workers
    python examples/hyperqueue/run.py FOLDER --server ~/.hq-server   # the workers of a running `hq server`

Each task is `moelab run --plan FOLDER/plan.jsonl --index I`, which does nothing if the run is made, so tasks may be repeated.
When the runs are made, `moelab suite promote` decides which arms continue and which repeats are added; its runs are submitted
until nothing is left to decide. A run that fails is reported and does not keep the others from being made; the same command
tries it again. `--adapter pci:ADDRESS` chooses the GPU of its tasks on machines with several; `moelab adapters` prints the addresses.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

from hyperqueue import Client, Job, LocalCluster
from hyperqueue.cluster import WorkerConfig


# How often a run is tried whose process was killed, or whose folder another process held.
ATTEMPTS = 3


# Seconds without any task after which the workers of the local cluster count as lost.
PATIENCE = 30


class WorkersLost(Exception):
    """The local cluster has no worker left."""


class Workers:
    """The workers of the local cluster; none, if those of a running server are used.

    A worker that misses its heartbeats, on a machine that is overloaded or was suspended, is dropped by the server for good, and a job
    without workers waits for ever. Tasks are child processes, so their absence tells.
    """

    def __init__(self, cluster, count):
        self.cluster, self.count, self.idle_since = cluster, count, None
        self.start()

    def start(self):
        self.idle_since = None
        for _ in range(self.count if self.cluster else 0):
            self.cluster.start_worker(WorkerConfig(cores=1))

    def watch(self, _jobs):
        """Called every second while a job is under way."""
        listed = subprocess.run(["ps", "-o", "comm=", "--ppid", str(os.getpid())], stdout=subprocess.PIPE, text=True).stdout
        if self.cluster is None or any(name != "ps" for name in listed.split()):
            self.idle_since = None
        elif self.idle_since is None:
            self.idle_since = time.monotonic()
        elif time.monotonic() - self.idle_since > PATIENCE:
            raise WorkersLost

    def wait_for(self, client, submitted):
        """Waits until every task of a job has ended. Returns whether all were successful."""
        while True:
            try:
                return not client.connection.wait_for_jobs((submitted.id,), self.watch)
            except WorkersLost:
                print("the workers were lost: others are started", file=sys.stderr, flush=True)
                self.start()


def make_runs(client, workers, moelab, folder):
    """Submits a task for each run of the plan and waits for them. Tasks that end without a result are submitted again.

    Returns the runs that still have none.
    """
    left = [json.loads(line) for line in (folder / "plan.jsonl").read_text(encoding="utf-8").splitlines()]
    logs = folder.resolve() / "tasks"
    logs.mkdir(exist_ok=True)
    for _ in range(ATTEMPTS):
        job = Job(name=folder.name, max_fails=None, default_workdir=pathlib.Path.cwd())
        for run in left:
            command = [*moelab, "run", "--plan", str(folder / "plan.jsonl"), "--index", str(run["index"])]
            output = str(logs / run["id"])
            # A worker that dies takes no run with it: the task starts again and resumes from the newest checkpoint.
            job.program(command, name=run["id"], stdout=output + ".out", stderr=output + ".err", crash_limit=5)
        submitted = client.submit(job)
        if workers.wait_for(client, submitted):
            return []
        failed = client.get_failed_tasks(submitted)
        status = {row["run"]: row["status"] for row in lines(*moelab, "suite", "status", str(folder), "--json")}
        left = [run for task, run in enumerate(left) if task in failed and not is_over(status[run["id"]])]
        if not left:
            return []
        time.sleep(1)
    return [run["id"] for run in left]


def is_over(status):
    """Whether a run has ended, or failed for a reason that is known."""
    return "ended" in status or "failed" in status


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
    parser.add_argument("--adapter", help="the adapter of the tasks, from `moelab adapters`: CUDA_VISIBLE_DEVICES does not steer Vulkan")
    args = parser.parse_args()

    cluster = LocalCluster() if args.server is None else None
    workers = Workers(cluster, args.workers)
    client = Client(args.server) if cluster is None else cluster.client()
    moelab = [args.moelab, *(["--adapter", args.adapter] if args.adapter else [])]
    while True:
        left = make_runs(client, workers, moelab, args.folder)
        decided = lines(*moelab, "suite", "promote", str(args.folder), "--json")
        print(f"{len(decided)} decisions", file=sys.stderr)
        if left or not decided:
            break
    if cluster is not None:
        cluster.stop()
    rows = lines(*moelab, "suite", "status", str(args.folder), "--json")
    failed = [row["run"] for row in rows if "failed" in row["status"]]
    print(f"failed: {', '.join(failed) or 'none'}; without a result after {ATTEMPTS} attempts: {', '.join(left) or 'none'}", file=sys.stderr)
    return 1 if failed or left else 0


if __name__ == "__main__":
    sys.exit(main())
