"""Searches beyond a grid with Optuna; every trial is a run with a folder of its own.

    pip install 'drawjax[train]' optuna
    python examples/search.py --folder runs/search --trials 20

Any number of these may run at once, on all hosts that see the folder: they share its journal. What
was interrupted goes on: a trial that a signal stopped is asked for again, and its run continues.
All flags of a run follow `--run.`, for example `--run.train.steps 20000`.
"""

import dataclasses
import pathlib

import optuna

import drawjax
from drawjax import cli
from drawjax.config import GenerationConfig
from drawjax.experiments.mnist_generation import PRESETS
from drawjax.training import Diverged, Interrupted

DATASET = "binarized_mnist"  # where --run.data.name names no other; arrays, too
_DONE = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """What to search."""

    folder: pathlib.Path = pathlib.Path("runs/search")
    """Where the trials and their journal are."""
    trials: int = 20
    """How many, all processes together."""
    run: GenerationConfig = PRESETS["demo"]
    """What each trial departs from."""


def config_of(trial: optuna.Trial, search: SearchConfig) -> GenerationConfig:
    """The run of a trial. Change this: what is searched, and in which range."""
    model = dataclasses.replace(
        search.run.model,
        hidden_size=trial.suggest_int("hidden_size", 64, 512, log=True),
        num_glimpses=trial.suggest_int("num_glimpses", 8, 32, step=8),
    )
    train = dataclasses.replace(
        search.run.train,
        learning_rate=trial.suggest_float("learning_rate", 3e-4, 1e-2, log=True),
    )
    name = ",".join(f"{name}={value}" for name, value in trial.params.items())
    return dataclasses.replace(
        search.run, model=model, train=train, workdir=str(search.folder / name)
    )


def search(search: SearchConfig) -> None:
    """Runs trials until there are as many as asked for, and prints the best."""
    search.folder.mkdir(parents=True, exist_ok=True)
    backend = optuna.storages.journal.JournalFileBackend(str(search.folder / "journal.log"))
    study = optuna.create_study(
        study_name="search",
        storage=optuna.storages.JournalStorage(backend),
        load_if_exists=True,
    )

    def validation_loss(trial: optuna.Trial) -> float:
        try:
            results = drawjax.train(config_of(trial, search), dataset=DATASET)
        except Diverged as error:
            raise optuna.TrialPruned(str(error)) from error
        except Interrupted:
            study.enqueue_trial(trial.params)
            raise
        return results["validation"]["loss"]

    if len(study.get_trials(states=_DONE)) < search.trials:
        enough = optuna.study.MaxTrialsCallback(search.trials, states=_DONE)
        study.optimize(validation_loss, callbacks=[enough])
    best = study.best_trial
    print(f"{best.value:.2f} nats: {best.params}")


if __name__ == "__main__":
    cli.command(search, SearchConfig(), description=__doc__)
