"""Trainings against MLflow on PostgreSQL and S3, and what happens when one of them, a disk or a clock fails."""

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow.entities import Run

from rakuten.tracking import server, training_run
from rakuten.tracking.registry import CHALLENGER, MODEL_NAME
from rakuten.tracking.training_run import PENDING_FOLDER
from tests.support.project import environment, run_in
from tests.support.servers import KEY, S3, SECRET, MLflow, Postgres, ServicePostgres, answers, free_port, wait_for

TRAIN = (sys.executable, "src/models/train_model.py")
SYNC = (sys.executable, "-m", "rakuten", "sync")
# Give up soon: the tests are about what comes after.
IMPATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


LOAD_VERSION = f"""
import sys
from pathlib import Path
import mlflow, pandas
model = mlflow.pyfunc.load_model("models:/{MODEL_NAME}/" + sys.argv[1])
products = pandas.read_csv("raw/X_test.csv", dtype=str, keep_default_na=False)
name = "raw/images/image_test/image_{{}}_product_{{}}.jpg"
ids = zip(products["imageid"], products["productid"], strict=True)
products["picture"] = [Path(name.format(*pair)).read_bytes() for pair in ids]
predicted = model.predict(products[["designation", "description", "picture"]])
predicted[["predicted_prdtypecode", "confidence"]].to_csv("predicted.csv", index=False)
"""


@pytest.fixture
def experiment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A name of its own for each test."""
    name = str(request.node.name)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", name)
    return name


@pytest.fixture
def env(tracking_server: MLflow, experiment: str) -> dict[str, str]:
    return {"MLFLOW_TRACKING_URI": tracking_server.url, "MLFLOW_EXPERIMENT_NAME": experiment} | IMPATIENT


@pytest.fixture
def client(tracking_server: MLflow) -> mlflow.MlflowClient:
    return client_of(tracking_server.url)


def client_of(url: str) -> mlflow.MlflowClient:
    mlflow.set_tracking_uri(url)
    return mlflow.MlflowClient(url)


def runs(client: mlflow.MlflowClient, experiment: str) -> list[Run]:
    entity = client.get_experiment_by_name(experiment)
    return list(client.search_runs([entity.experiment_id])) if entity else []


def assert_recorded_once(client: mlflow.MlflowClient, experiment: str, project: Path) -> Run:
    """One finished run with everything, one model, one version, and nothing left to send."""
    (run,) = runs(client, experiment)
    run_id = run.info.run_id
    assert run.info.status == "FINISHED"
    assert run.data.params["seed"] == "42"
    assert len(client.get_metric_history(run_id, "weighted_f1")) == 1
    assert {entry.path for entry in client.list_artifacts(run_id)} >= {"dvc.yaml", "models", "params.yaml", "reports"}
    assert len(run.inputs.dataset_inputs) == 10
    assert len(client.search_logged_models([run.info.experiment_id])) == 1
    (version,) = client.search_model_versions(f"name = '{MODEL_NAME}' and run_id = '{run_id}'")
    assert version.tags["model_digest"] == run.data.tags["model_digest"]
    assert not list((project / "models" / PENDING_FOLDER).glob("*"))
    return run


def start_training(project: Path, env: dict[str, str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        TRAIN, cwd=project, env=environment(project, **env), stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_for_run(client: mlflow.MlflowClient, experiment: str) -> None:
    wait_for(lambda: any(run.inputs.dataset_inputs for run in runs(client, experiment)), "the run", 60)


def pause(training: "subprocess.Popen[str]") -> None:
    os.killpg(training.pid, signal.SIGSTOP)


def resume(training: "subprocess.Popen[str]") -> None:
    os.killpg(training.pid, signal.SIGCONT)


@pytest.fixture(scope="module")
def recorded(workshop: Path, tracking_server: MLflow, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """A project that was trained and has predictions, and its run. Read only."""
    project = tmp_path_factory.mktemp("recorded") / "project"
    shutil.copytree(workshop, project, symlinks=True)
    env = {"MLFLOW_TRACKING_URI": tracking_server.url, "MLFLOW_EXPERIMENT_NAME": "recorded"} | IMPATIENT
    run_in(project, *TRAIN, **env)
    run_in(project, sys.executable, "src/models/predict_model.py", **env)
    return project, assert_recorded_once(client_of(tracking_server.url), "recorded", project)


@pytest.fixture
def plain_folder(recorded: tuple[Path, Run], tracking_server: MLflow, tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A folder with raw data and no project, and an environment for plain MLflow."""
    shutil.copytree(recorded[0] / "data" / "raw", tmp_path / "raw")
    env = environment(tmp_path, MLFLOW_TRACKING_URI=tracking_server.url)
    del env["PYTHONPATH"]
    return tmp_path, env


def test_a_server_that_answers_is_accepted(tracking_server: MLflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_server.url)
    server.check_server()


def test_a_training_is_recorded_on_s3_by_a_client_without_its_keys(
    recorded: tuple[Path, Run], client: mlflow.MlflowClient, s3: S3
) -> None:
    _, run = recorded
    versions = client.search_model_versions(f"run_id = '{run.info.run_id}'")
    assert len(versions) == 1
    assert any(run.info.run_id in key for key in s3.keys("mlflow"))


def test_plain_mlflow_predicts_from_raw_columns(
    recorded: tuple[Path, Run], plain_folder: tuple[Path, dict[str, str]], client: mlflow.MlflowClient
) -> None:
    project, run = recorded
    folder, env = plain_folder
    (version,) = client.search_model_versions(f"run_id = '{run.info.run_id}'")
    (folder / "load.py").write_text(LOAD_VERSION)
    subprocess.run([sys.executable, "load.py", version.version], cwd=folder, env=env, check=True, timeout=120)
    expected = pd.read_csv(project / "data" / "processed" / "predictions.csv")
    predicted = pd.read_csv(folder / "predicted.csv")
    pd.testing.assert_frame_equal(predicted, expected[["predicted_prdtypecode", "confidence"]])


def test_the_scoring_server_of_mlflow_predicts(
    recorded: tuple[Path, Run], plain_folder: tuple[Path, dict[str, str]], client: mlflow.MlflowClient
) -> None:
    project, run = recorded
    folder, env = plain_folder
    (version,) = client.search_model_versions(f"run_id = '{run.info.run_id}'")
    address, port = f"models:/{MODEL_NAME}/{version.version}", str(free_port())
    command = ["mlflow", "models", "serve", "--model-uri", address, "--env-manager", "local"]
    command += ["--host", "127.0.0.1", "--port", port]
    with (folder / "serve.log").open("w") as log:
        serving = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        body = json.dumps({"dataframe_records": [{"designation": "Piscine gonflable", "description": "Avec pompe"}]})
        wait_for(lambda: answers(f"http://127.0.0.1:{port}/ping"), "mlflow models serve", 90)
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations", body.encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as answer:
            (product,) = json.load(answer)["predictions"]
    finally:
        os.killpg(serving.pid, signal.SIGKILL)
        serving.wait(30)
    expected = pd.read_csv(project / "data" / "processed" / "predictions.csv")
    assert product["predicted_prdtypecode"] in expected["predicted_prdtypecode"].tolist()
    assert 0 < product["confidence"] <= 1


def test_a_training_that_fails_is_a_failed_run(
    client: mlflow.MlflowClient, env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", env["MLFLOW_TRACKING_URI"])
    data = tmp_path / "train_features.csv"
    data.write_text("a\n")
    tags = {"synthetic": "true"}
    with pytest.raises(RuntimeError), training_run.training_run({"seed": 1}, [data], tags, tmp_path) as training:
        raise RuntimeError
    run = client.get_run(training.run_id)
    assert run.info.status == "FAILED"
    assert run.data.params == {"seed": "1"}
    assert run.data.tags["synthetic"] == "true"
    assert [entry.dataset.digest for entry in run.inputs.dataset_inputs] == ["60b725f10c9c85c70d97880dfe8191b3"]


def test_a_server_that_is_away_stops_the_training_before_it_begins(project: Path) -> None:
    output = run_in(project, *TRAIN, code=1, MLFLOW_TRACKING_URI=f"http://127.0.0.1:{free_port()}")
    assert "ERROR train: the tracking server" in output
    assert "does not answer" in output
    assert "Traceback" not in output
    assert not (project / "models" / "model.safetensors").exists()
    assert not list((project / "models").glob(f"{PENDING_FOLDER}/*"))


def test_a_server_lost_in_mid_run_gets_the_run_later_once(
    project: Path, env: dict[str, str], client: mlflow.MlflowClient, experiment: str, tracking_server: MLflow
) -> None:
    training = start_training(project, env)
    try:
        wait_for_run(client, experiment)
        tracking_server.stop()
        output = training.communicate(timeout=120)[1]
        assert training.returncode == 0, output
        assert "the run is kept in" in output
        assert "rakuten sync" in output
        assert (project / "models" / "model.safetensors").is_file()
        (kept,) = (project / "models" / PENDING_FOLDER).iterdir()
        # While it is away, predict works, and sync reports what is wrong.
        assert "INFO predict" in run_in(project, sys.executable, "src/models/predict_model.py", **env)
        assert "does not answer" in run_in(project, *SYNC, code=1, **env)
        assert kept.is_dir()
    finally:
        tracking_server.start()
    assert "1 kept run(s) sent" in run_in(project, *SYNC, **env)
    run = assert_recorded_once(client, experiment, project)
    assert run.info.run_id == kept.name
    assert "0 kept run(s) sent" in run_in(project, *SYNC, **env)
    assert_recorded_once(client, experiment, project)


@pytest.mark.slow
def test_s3_that_refuses_writes_does_not_cost_the_run(
    project: Path, env: dict[str, str], client: mlflow.MlflowClient, experiment: str, s3: S3
) -> None:
    training = start_training(project, env)
    try:
        wait_for_run(client, experiment)
        s3.stop()
        output = training.communicate(timeout=200)[1]
        assert training.returncode == 0, output
        assert "the run is kept in" in output
        # Scores went to PostgreSQL already: sending again must not double them.
        (half,) = runs(client, experiment)
        assert half.data.metrics["weighted_f1"] > 0
    finally:
        s3.start()
    run_in(project, *SYNC, **env)
    assert_recorded_once(client, experiment, project)


def test_a_restart_of_postgresql_goes_unnoticed(
    project: Path,
    env: dict[str, str],
    client: mlflow.MlflowClient,
    experiment: str,
    postgres: Postgres | ServicePostgres,
) -> None:
    if isinstance(postgres, ServicePostgres):
        pytest.skip("a service container is not restarted from within a test")
    training = start_training(project, env)
    wait_for_run(client, experiment)
    pause(training)
    try:
        postgres.restart()
    finally:
        resume(training)
    output = training.communicate(timeout=200)[1]
    assert training.returncode == 0, output
    if "the run is kept in" in output:  # it was caught in the middle of a request
        run_in(project, *SYNC, **env)
    assert_recorded_once(client, experiment, project)


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of its own with room for one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]).returncode:
        pytest.skip("mounting a small disk takes root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_of_artifacts_does_not_cost_the_run(
    project: Path, experiment: str, postgres: Postgres, full_disk: Path, tmp_path: Path
) -> None:
    mlflow_server = MLflow(tmp_path, postgres.database("full_disk") | {"ARTIFACTS_FOLDER": str(full_disk)})
    (full_disk / "ballast").write_bytes(bytes(900_000))
    mlflow_server.start()
    try:
        env = {"MLFLOW_TRACKING_URI": mlflow_server.url, "MLFLOW_EXPERIMENT_NAME": experiment} | IMPATIENT
        output = run_in(project, *TRAIN, **env)
        assert "the run is kept in" in output
        (full_disk / "ballast").unlink()
        subprocess.run(["mount", "-o", "remount,size=100m", str(full_disk)], check=True)
        run_in(project, *SYNC, **env)
        assert_recorded_once(client_of(mlflow_server.url), experiment, project)
    finally:
        mlflow_server.stop()


@pytest.mark.slow
def test_a_server_that_asks_for_a_password(project: Path, experiment: str, postgres: Postgres, tmp_path: Path) -> None:
    secrets = {"AUTH": "true", "MLFLOW_AUTH_ADMIN_PASSWORD": "a-long-password", "MLFLOW_FLASK_SERVER_SECRET_KEY": "x"}
    folder = {"ARTIFACTS_FOLDER": str(tmp_path / "artifacts")}
    mlflow_server = MLflow(tmp_path, postgres.database("asks_password") | secrets | folder)
    mlflow_server.start()  # its health check passes without a password
    try:
        env = {"MLFLOW_TRACKING_URI": mlflow_server.url, "MLFLOW_EXPERIMENT_NAME": experiment} | IMPATIENT
        for wrong in ({}, {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": "wrong"}):
            output = run_in(project, *TRAIN, code=1, **env, **wrong)
            assert "refuses (401" in output
            assert "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in output
        right = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": "a-long-password"}
        assert "the run is kept" not in run_in(project, *TRAIN, **env, **right)
    finally:
        mlflow_server.stop()


@pytest.mark.slow
def test_a_clock_that_is_slow_does_not_hide_the_newest_training(
    project: Path, env: dict[str, str], client: mlflow.MlflowClient, experiment: str, tmp_path: Path
) -> None:
    run_in(project, "dvc", "repro", **env)
    first = runs(client, experiment)[0].info.run_id
    # The clock of this machine falls back by two days, then the same is trained again.
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow" / "sitecustomize.py").write_text(
        "import time\nright = time.time\ntime.time = lambda: right() - 172800\n"
    )
    slow = env | {"PYTHONPATH": f"{tmp_path / 'slow'}{os.pathsep}{project / 'src'}"}
    run_in(project, *TRAIN, **slow)
    second = next(run for run in runs(client, experiment) if run.info.run_id != first)
    assert second.info.start_time < client.get_run(first).info.start_time - 86_400_000
    assert client.get_model_version_by_alias(MODEL_NAME, CHALLENGER).run_id == second.info.run_id
    # dvc.lock goes to the run that made the model here, though another with the same model looks newer.
    run_in(project, sys.executable, "-m", "rakuten", "summary", **slow)
    assert "dvc_lock" in client.get_run(second.info.run_id).data.tags


def test_two_trainings_at_once_are_two_runs_and_two_versions(
    project: Path, env: dict[str, str], client: mlflow.MlflowClient, experiment: str, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(project, other, symlinks=True)
    trainings = [start_training(folder, env) for folder in (project, other)]
    for training in trainings:
        output = training.communicate(timeout=200)[1]
        assert training.returncode == 0, output
        assert "the run is kept in" not in output
    recorded = runs(client, experiment)
    assert [run.info.status for run in recorded] == ["FINISHED", "FINISHED"]
    versions = [client.search_model_versions(f"run_id = '{run.info.run_id}'") for run in recorded]
    assert sorted(map(len, versions)) == [1, 1]
    assert client.get_model_version_by_alias(MODEL_NAME, CHALLENGER).run_id in {run.info.run_id for run in recorded}


# Trains, and fails when all was sent, before the record is deleted.
FAIL_AFTER_SENDING = """
import shutil, sys, types
sys.path.insert(0, "src/models")
import train_model
from rakuten.tracking import training_run
def rmtree(path, ignore_errors=False):
    if not ignore_errors:
        raise OSError("cut")
training_run.shutil = types.SimpleNamespace(**vars(shutil) | {"rmtree": rmtree})
sys.exit(train_model.main([]))
"""


@pytest.mark.slow
def test_what_was_sent_already_is_not_sent_again(
    project: Path, env: dict[str, str], client: mlflow.MlflowClient, experiment: str
) -> None:
    assert "the run is kept in" in run_in(project, sys.executable, "-c", FAIL_AFTER_SENDING, **env)
    assert "1 kept run(s) sent" in run_in(project, *SYNC, **env)
    assert_recorded_once(client, experiment, project)


def test_an_altered_record_is_not_sent(project: Path, env: dict[str, str], tracking_server: MLflow) -> None:
    kept = project / "models" / PENDING_FOLDER / ("0" * 32)
    (kept / "model").mkdir(parents=True)
    (kept / "model" / "manifest.json").write_text("{}")
    (kept / "record.json").write_text(json.dumps({"tags": {"model_digest": "another"}}))
    assert "its model has changed since" in run_in(project, *SYNC, code=1, **env)


def test_a_setting_that_is_missing_stops_the_server_with_its_name(postgres: Postgres, tmp_path: Path) -> None:
    env = postgres.database("missing") | {"ARTIFACTS_FOLDER": str(tmp_path / "artifacts")}
    for missing, name in (
        ({"PGPASSWORD": ""}, "POSTGRES_PASSWORD"),
        ({"AUTH": "true", "MLFLOW_AUTH_ADMIN_PASSWORD": ""}, "MLFLOW_ADMIN_PASSWORD"),
    ):
        mlflow_server = MLflow(tmp_path, env | missing)
        done = subprocess.run(
            mlflow_server.command, env=mlflow_server.env, cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stderr) == (1, f"ERROR mlflow server: {name} is not set: see .env.example\n")


def test_s3_keys_that_are_wrong_stop_the_server_with_a_line(postgres: Postgres, s3: S3, tmp_path: Path) -> None:
    env = postgres.database("wrong_keys") | {
        "ARTIFACTS_BUCKET": "mlflow", "MLFLOW_S3_ENDPOINT_URL": s3.url, "AWS_DEFAULT_REGION": "eu-west-3",
        "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": f"not-{SECRET}",
    }  # fmt: skip
    mlflow_server = MLflow(tmp_path, env)
    done = subprocess.run(
        mlflow_server.command, env=mlflow_server.env, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "check S3_ACCESS_KEY_ID" in done.stderr
    assert "Traceback" not in done.stderr
