"""Searches learning rates of a moelab study with Optuna, one run at a time.

    pip install optuna==5.0.0
    python examples/optuna/search.py STUDY.toml --trials 8 --moelab target/release/moelab

Optuna proposes parameters; `moelab suite ask` turns them into a run, and `moelab suite tell` returns its losses. Trials are named by
their config: parameters that were tried before are not run again. Everything is in the study's run folder and in `optuna.db` beside
it, so that an interrupted search continues where it stopped.
"""

import argparse
import json
import pathlib
import subprocess

import optuna

DISTRIBUTIONS = {
    "optimizer.muon.lr": optuna.distributions.FloatDistribution(1e-3, 1e-1, log=True),
    "optimizer.adamw.lr": optuna.distributions.FloatDistribution(1e-4, 1e-1, log=True),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study")
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--moelab", default="moelab")
    parser.add_argument("--out", default="runs/optuna")
    arguments = parser.parse_args()
    folder = pathlib.Path(arguments.out)
    folder.mkdir(parents=True, exist_ok=True)

    def moelab(verb, *more):
        command = [arguments.moelab, "suite", verb, arguments.study, "--out", arguments.out, *more]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    search = optuna.create_study(
        study_name="moelab",
        storage=f"sqlite:///{folder / 'optuna.db'}",
        load_if_exists=True,
        direction="minimize",
        sampler=optuna.samplers.TPESampler(seed=0),
    )
    while len([t for t in search.trials if t.state.is_finished()]) < arguments.trials:
        trial = search.ask(DISTRIBUTIONS)
        asked = moelab("ask", "--params", json.dumps(trial.params))
        if asked["command"]:
            # A run that diverged or failed has another exit code; its state says so.
            subprocess.run(asked["command"], check=False, stdout=subprocess.DEVNULL)
        told = moelab("tell", asked["trial"])
        for update, loss in told["intermediate_values"]:
            trial.report(float(loss), update)
        state = optuna.trial.TrialState[told["state"]] if told["state"] != "RUNNING" else optuna.trial.TrialState.FAIL
        search.tell(trial, told["value"] if state == optuna.trial.TrialState.COMPLETE else None, state=state)
        print(json.dumps({"trial": asked["trial"], "state": told["state"], "value": told["value"], "params": trial.params}), flush=True)
    best = search.best_trial
    print(json.dumps({"best": best.params, "value": best.value}))


if __name__ == "__main__":
    main()
