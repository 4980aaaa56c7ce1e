"""The files of examples/, held to what can be known without the systems that they are for."""

import dataclasses
import importlib.util
import os
import re
import shlex
import subprocess

import pytest
import yaml

from drawjax import cli, sweeps
from drawjax.config import DrawConfig, GenerationConfig, TrainConfig
from drawjax.experiments.mnist_generation import PRESETS
from drawjax.training import Interrupted
from tests.docs import pages
from tests.docs.pages import ROOT
from tests.docs.test_blocks import check_project_command

EXAMPLES = ROOT / "examples"
FILES = sorted(path for path in EXAMPLES.iterdir() if path.is_file())
SCRIPTS = sorted(EXAMPLES.glob("*.sbatch"))
MANIFESTS = ("jobset.yaml", "indexed_job.yaml")


def _documents(name):
    return list(yaml.safe_load_all((EXAMPLES / name).read_text()))


def _of_kind(name, kind):
    (found,) = (document for document in _documents(name) if document["kind"] == kind)
    return found


def _container(job):
    (container,) = job["spec"]["template"]["spec"]["containers"]
    return container


def _jobs():
    """The Jobs of all manifests, by file."""
    (hosts,) = _of_kind("jobset.yaml", "JobSet")["spec"]["replicatedJobs"]
    assert hosts["replicas"] == 1
    return {
        "jobset.yaml": hosts["template"],
        "indexed_job.yaml": _of_kind("indexed_job.yaml", "Job"),
    }


def _command(name):
    """The words of the `drawjax` command in a file, with 0 for the shell's variables."""
    if name in MANIFESTS:
        container = _container(_jobs()[name])
        words = [*container["command"], *container["args"]]
        text = words[2] if words[:2] == ["/bin/sh", "-c"] else shlex.join(words)
    else:
        text = (EXAMPLES / name).read_text()
        text = yaml.safe_load(text)["run"] if name.endswith(".yaml") else text
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    (line,) = (line for line in lines if re.match(r"\s*(exec |srun )?drawjax ", line))
    words = shlex.split(re.sub(r"\$\w+", "0", line))
    return words[words.index("drawjax") + 1 :]


def _config(name):
    words = _command(name)
    assert words[:2] == ["train", "mnist_generation"]
    return cli.parse(PRESETS, words[2:], options=cli.Options())


RUNS = (*MANIFESTS, "skypilot.yaml", *(path.name for path in SCRIPTS))


@pytest.mark.parametrize("name", RUNS)
def test_the_command_in_a_file_is_read_by_its_parser(name):
    check_project_command(*pages.module_of(_command(name)))


def test_every_file_is_held_to_something():
    assert {path.name for path in FILES} == {*RUNS, "search.py", "README.md"}
    linked = re.findall(r"\]\(([\w.]+)\)", (EXAMPLES / "README.md").read_text())
    assert sorted(linked) == sorted({path.name for path in FILES} - {"README.md"})
    guide = (ROOT / "docs" / "guides" / "sweeps_and_hosts.md").read_text()
    shown = re.findall(r"\{literalinclude\} \.\./\.\./examples/(\S+)", guide)
    assert sorted(shown) == sorted(linked)


# Kubernetes.


@pytest.mark.parametrize("name", MANIFESTS)
def test_objects_have_what_their_kinds_ask_for(name):
    for document in _documents(name):
        assert set(document) - {"spec"} >= {"apiVersion", "kind", "metadata"}
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", document["metadata"]["name"])
    versions = {d["kind"]: d["apiVersion"] for d in _documents(name)}
    known = {
        "Job": "batch/v1", "JobSet": "jobset.x-k8s.io/v1alpha2", "ServiceAccount": "v1",
        "Role": "rbac.authorization.k8s.io/v1", "RoleBinding": "rbac.authorization.k8s.io/v1",
    }  # fmt: skip
    assert versions.items() <= known.items()


@pytest.mark.parametrize("name", MANIFESTS)
def test_jobs_are_indexed_and_start_all_their_pods(name):
    job = _jobs()[name]
    spec = job["spec"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"] > 1
    pod = spec["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # as podFailurePolicy asks
    container = _container(job)
    assert container["image"] == "IMAGE"
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    mounted = [mount["mountPath"] for mount in container["volumeMounts"]]
    config, _ = _config(name)
    for folder in (config.workdir, config.data.dir):
        assert any(str(folder).startswith(f"{path}/") for path in mounted), folder


def test_what_cannot_get_better_is_not_started_again():
    jobs = _jobs()
    rules = {
        name: {
            code: rule["action"]
            for rule in job["spec"]["podFailurePolicy"]["rules"]
            for code in rule.get("onExitCodes", {}).get("values", ())
        }
        for name, job in jobs.items()
    }
    assert rules == {
        "jobset.yaml": {2: "FailJob", 3: "FailJob"},
        "indexed_job.yaml": {2: "FailJob", 3: "FailIndex"},
    }
    assert "backoffLimitPerIndex" in jobs["indexed_job.yaml"]["spec"]  # FailIndex needs it
    policy = _of_kind("jobset.yaml", "JobSet")["spec"]["failurePolicy"]
    (rule,) = policy["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    assert jobs["jobset.yaml"]["spec"]["backoffLimit"] == 0 < policy["maxRestarts"]


def test_the_pods_may_ask_the_cluster_what_jax_asks():
    account = _of_kind("jobset.yaml", "ServiceAccount")["metadata"]["name"]
    assert _jobs()["jobset.yaml"]["spec"]["template"]["spec"]["serviceAccountName"] == account
    binding = _of_kind("jobset.yaml", "RoleBinding")
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account}]
    role = _of_kind("jobset.yaml", "Role")
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    allowed = {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert {("", "pods", "list"), ("", "services", "list"), ("batch", "jobs", "get")} <= allowed


# The numbers in a file agree.


def test_a_sweep_has_a_job_for_each_point():
    (array,) = re.findall(r"#SBATCH --array=0-(\d+)", (EXAMPLES / "sweep.sbatch").read_text())
    numbers = {
        "sweep.sbatch": int(array) + 1,
        "indexed_job.yaml": _jobs()["indexed_job.yaml"]["spec"]["completions"],
    }
    for name, number in numbers.items():
        config, options = _config(name)
        assert len(sweeps.expand(config, options.sweep)) == number, name
        assert options.sweep_index == 0, name


def test_a_batch_is_divided_among_all_devices():
    script = (EXAMPLES / "hosts.sbatch").read_text()
    nodes, gpus = (
        int(re.search(rf"#SBATCH --{flag}=(\d+)", script)[1]) for flag in ("nodes", "gpus-per-node")
    )
    job = _jobs()["jobset.yaml"]
    sky = yaml.safe_load((EXAMPLES / "skypilot.yaml").read_text())
    devices = {
        "hosts.sbatch": nodes * gpus,
        "jobset.yaml": job["spec"]["parallelism"]
        * _container(job)["resources"]["limits"]["nvidia.com/gpu"],
        "skypilot.yaml": sky["num_nodes"] * int(sky["resources"]["accelerators"].split(":")[1]),
    }
    for name, number in devices.items():
        config, options = _config(name)
        assert config.train.batch_size % number == 0, name
        assert (options.coordinator is not None) == (name == "skypilot.yaml")


def test_a_task_of_skypilot_has_known_fields():
    task = yaml.safe_load((EXAMPLES / "skypilot.yaml").read_text())
    known = {"name", "workdir", "num_nodes", "resources", "file_mounts", "setup", "run"}
    assert set(task) == known
    variables = set(re.findall(r"\$(SKYPILOT_\w+)", task["run"]))
    assert variables == {"SKYPILOT_NODE_IPS", "SKYPILOT_NUM_NODES", "SKYPILOT_NODE_RANK"}
    for script in (task["setup"], task["run"]):
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    (mount,) = task["file_mounts"]
    config, _ = _config("skypilot.yaml")
    assert config.workdir.startswith(f"{mount}/")


# SLURM: the scripts are run, with commands that only write down how they were called.


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
@pytest.mark.parametrize(("code", "requeued"), [(0, False), (3, False), (143, True)])
def test_a_job_that_saved_goes_back_to_the_queue(script, code, requeued, tmp_path):
    assert re.search(r"^#SBATCH --signal=TERM@\d+", script.read_text(), re.M)
    for command, end in (("srun", code), ("scontrol", 0)):
        path = tmp_path / command
        path.write_text(f'#!/bin/sh\necho "{command} $*" >> "$LOG"\nexit {end}\n')
        path.chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}", "LOG": str(tmp_path / "log"), "RUNS": "/r",
        "SLURM_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "4",
    }  # fmt: skip
    done = subprocess.run(["bash", str(script)], env=environment, check=False)
    assert done.returncode == code
    first, *rest = (tmp_path / "log").read_text().splitlines()
    assert first.startswith("srun drawjax train mnist_generation ")
    assert " --workdir /r/" in first
    assert rest == (["scontrol requeue 12"] if requeued else [])
    if script.name == "sweep.sbatch":
        assert first.endswith("--sweep-index 4")


# The search.


@pytest.fixture
def search():
    pytest.importorskip("optuna")
    spec = importlib.util.spec_from_file_location("search", EXAMPLES / "search.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tiny(search, tmp_path, monkeypatch):
    """A search of two trials of two steps."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)

    def narrow(trial, wanted):
        config = config_of(trial, wanted)
        model = dataclasses.replace(config.model, hidden_size=8, num_glimpses=2)
        return dataclasses.replace(config, model=model)

    config_of = search.config_of
    monkeypatch.setattr(search, "config_of", narrow)
    run = GenerationConfig(
        model=DrawConfig(latent_size=2, read_size=2, write_size=2),
        train=TrainConfig(steps=2, batch_size=8, log_every=1, eval_every=1),
        data=PRESETS["demo"].data,
    )
    return search.SearchConfig(folder=tmp_path / "search", trials=2, run=run)


@pytest.mark.slow
def test_a_trial_is_a_run(search, tiny, capsys):
    search.search(tiny)
    folders = [path for path in tiny.folder.iterdir() if path.is_dir()]
    assert len(folders) == 2
    assert all((folder / "results.json").exists() for folder in folders)
    said = capsys.readouterr().out
    assert re.search(r"^\d+\.\d\d nats: \{'hidden_size': \d+, .*'learning_rate': ", said, re.M)
    search.search(tiny)  # is finished: nothing runs again
    assert capsys.readouterr().out == said


def test_a_trial_that_was_stopped_is_asked_for_again(search, tiny, monkeypatch):
    asked = []

    def train(config, dataset):
        asked.append(config.workdir)
        if len(asked) == 1:
            raise Interrupted(15)
        return {"validation": {"loss": 1.0}}

    monkeypatch.setattr(search.drawjax, "train", train)
    with pytest.raises(Interrupted):
        search.search(tiny)
    search.search(tiny)
    assert asked[0] == asked[1] != asked[2]
    assert len(asked) == 3
