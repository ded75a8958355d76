"""Versions in processes of other trees.

Versions that were registered before the library had a name of its own have `src.models.raw_model` as their loader, and
carry the package `src` that it is in. New ones carry `rakuten`, and leave the name `src` to whoever loads them.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import mlflow.pyfunc
import pandas as pd
import pytest

from rakuten.config import ROOT, SOURCE
from rakuten.errors import UserError
from rakuten.models.pyfunc_model import OUTPUTS
from rakuten.promotion.gate import measure_cost
from rakuten.tracking import registry, server, training_run
from rakuten.tracking.registry import MODEL_NAME
from rakuten.tracking.signatures import NO_SIGNATURE
from tests.support.project import environment

OLD, NEW = "1", "2"
OLD_PREDICTIONS, NEW_PREDICTIONS = [2705, 2705], [10, 2583]
PRODUCTS = pd.DataFrame({"designation": ["jeu 3", "piscine 4"]})
# The code of the old version. Its prediction is in its data.
OLD_LOADER = """
from pathlib import Path
import pandas as pd
from src.config import COLUMN

class Model:
    def __init__(self, code):
        self.code = code

    def predict(self, products, params=None):
        return pd.DataFrame({COLUMN: [self.code] * len(products)})

def _load_pyfunc(path):
    return Model(int(Path(path, "code.txt").read_text()))
"""
# `python -c PREDICT TRACKING_URI NUMBER`: the predictions of a version, as JSON.
PREDICT = f"""
import mlflow.pyfunc, pandas
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/{MODEL_NAME}/" + sys.argv[2])
predicted = model.predict(pandas.DataFrame({PRODUCTS.to_dict("list")}))
print(json.dumps(predicted["predicted_prdtypecode"].tolist()))
"""
IN_THIS_TREE = "import json, sys, rakuten.models.pyfunc_model"
# Without any tree: one may be installed in the environment by a path.
ELSEWHERE = """
import importlib.util, json, os, sys
sys.path = [path for path in sys.path if not os.path.isdir(os.path.join(path, "rakuten"))]
assert importlib.util.find_spec("rakuten") is None
"""
WITH_OWN_SRC = ELSEWHERE + "import src.models; assert src.models.OWNER == 'the user'"
OWN_SRC_IS_KEPT = "import src.models; assert src.models.OWNER == 'the user'"


@pytest.fixture(scope="module")
def tracking_uri(empty_store: Path, saved_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an embedded store with two versions: OLD, and NEW, which this tree logged."""
    folder = tmp_path_factory.mktemp("versions")
    shutil.copy(empty_store / "mlflow.db", folder / "mlflow.db")
    shutil.copytree(saved_model, folder / "models")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setattr(server, "EMBEDDED", f"sqlite:///{folder}/mlflow.db")
        patch.setattr(server, "ARTIFACTS_FOLDER", folder / "mlruns")
        patch.setattr(training_run, "MODELS", folder / "models")
        register_old_version(folder / "old")
        with training_run.training_run({}, [], {}, folder / "models") as run:
            run.log({}, OUTPUTS, [])
        yield server.EMBEDDED


def register_old_version(folder: Path) -> None:
    """Register a model as the tree did whose library was the package `src`."""
    code, data = folder / "src", folder / "data"
    (code / "models").mkdir(parents=True)
    (code / "__init__.py").write_text("")
    (code / "config.py").write_text("COLUMN = 'predicted_prdtypecode'\n")
    (code / "models" / "__init__.py").write_text("")
    (code / "models" / "raw_model.py").write_text(OLD_LOADER)
    data.mkdir()
    (data / "code.txt").write_text(str(OLD_PREDICTIONS[0]))
    client = server.get_client()
    with mlflow.start_run(experiment_id=server.get_or_create_experiment(client, "old")) as run:
        model = mlflow.pyfunc.log_model(
            name="model",
            loader_module="src.models.raw_model",
            data_path=str(data),
            code_paths=[str(code)],
            pip_requirements=["mlflow"],
        )
    assert registry.register(run.info.run_id, model, {"model_digest": "digest"}, 0, delayed=False) == OLD


def predict(tracking_uri: str, number: str, code: str, cwd: Path, **env: str) -> list[int]:
    """The predictions of a version in another process, whose program begins with `code`."""
    inherited = environment(cwd)
    del inherited["PYTHONPATH"]
    done = subprocess.run(
        [sys.executable, "-c", code, tracking_uri, number],
        cwd=cwd, env=inherited | env, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    predictions: list[int] = json.loads(done.stdout.splitlines()[-1])
    return predictions


def test_an_old_version_loads_in_a_process_of_this_tree(tracking_uri: str) -> None:
    """Its folder `src` is found as well: the current folder is on the path of `python -c`."""
    code = f"{IN_THIS_TREE}\n{PREDICT}"
    assert predict(tracking_uri, OLD, code, ROOT, PYTHONPATH=str(SOURCE)) == OLD_PREDICTIONS


def test_an_old_version_loads_in_a_process_that_knows_no_tree(tracking_uri: str, tmp_path: Path) -> None:
    assert predict(tracking_uri, OLD, f"{ELSEWHERE}\n{PREDICT}", tmp_path) == OLD_PREDICTIONS


def test_a_new_version_loads_in_a_process_that_knows_no_tree(tracking_uri: str, tmp_path: Path) -> None:
    """With the names of its codes, which it carries."""
    has_names = "assert predicted['label'].tolist() == [\"livres d'occasion\", 'piscine et spa']"
    assert predict(tracking_uri, NEW, f"{ELSEWHERE}\n{PREDICT}\n{has_names}", tmp_path) == NEW_PREDICTIONS


def test_a_new_version_loads_beside_a_package_called_src(tracking_uri: str, tmp_path: Path) -> None:
    (tmp_path / "src" / "models").mkdir(parents=True)
    (tmp_path / "src" / "__init__.py").write_text("")
    (tmp_path / "src" / "models" / "__init__.py").write_text("OWNER = 'the user'\n")
    code = f"{WITH_OWN_SRC}\n{PREDICT}\n{OWN_SRC_IS_KEPT}"
    assert predict(tracking_uri, NEW, code, tmp_path) == NEW_PREDICTIONS


@pytest.fixture
def forget_src(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget the package `src` that an old version brings into this process."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "src"]:
        del sys.modules[name]


@pytest.mark.usefixtures("forget_src")
def test_both_load_in_one_process_of_this_tree(tracking_uri: str) -> None:
    for number, predictions in ((OLD, OLD_PREDICTIONS), (NEW, NEW_PREDICTIONS)):
        predicted = mlflow.pyfunc.load_model(f"models:/{MODEL_NAME}/{number}").predict(PRODUCTS)
        assert predicted["predicted_prdtypecode"].tolist() == predictions


def test_the_gate_runs_no_code_that_the_registry_holds(tracking_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow.pyfunc, "load_model", None)
    old, new = map(registry.get_by_number, (OLD, NEW))
    assert old
    assert new
    assert measure_cost(new, NO_SIGNATURE).size_mb > 0
    with pytest.raises(UserError, match="version 1 is not a model of this project"):
        measure_cost(old, NO_SIGNATURE)
    assert "src.models" not in sys.modules


def test_the_new_version_names_the_loader_of_this_tree(tracking_uri: str) -> None:
    """A contract: versions that are registered today have it as well."""
    model = mlflow.models.get_model_info(f"models:/{MODEL_NAME}/{NEW}")
    assert model.flavors["python_function"]["loader_module"] == "rakuten.models.pyfunc_model"
