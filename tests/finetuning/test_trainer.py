"""The training loop, on a network of one layer."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from rakuten import files
from rakuten.errors import UserError
from rakuten.finetuning import trainer
from rakuten.finetuning.trainer import Inputs, Network, Schedule, Target, Trainer, learning_rate_factor, score_rows

N_ROWS, WIDTH = 90, 6
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N_ROWS, WIDTH)).astype(np.float32)
Y = X[:, :3].argmax(axis=1)
CPU = torch.device("cpu")
SCHEDULE = Schedule(
    epochs=4, batch=16, learning_rate=1e-2, head_learning_rate=5e-2, layer_decay=0.5, weight_decay=0.01,
    label_smoothing=0.0, seed=3,
)  # fmt: skip


class Numbers:
    """Rows of X as the inputs of a network."""

    lengths = RNG.integers(1, 9, N_ROWS)

    def batch(self, rows: np.ndarray, augmentation: int | None) -> Inputs:
        return {"x": torch.from_numpy(X[rows])}

    def describe(self, row: int) -> str:
        return f"one text of {self.lengths[row]} tokens"


class Small(Network):
    """Two layers, with dropout between them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.base, self.head = nn.Linear(WIDTH, 8), nn.Linear(8, 3)

    def layers(self) -> list[list[nn.Parameter]]:
        return [list(self.head.parameters()), list(self.base.parameters())]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(nn.functional.dropout(torch.tanh(self.base(x)), 0.1, self.training))
        return scores


def make(network: Network | None = None, schedule: Schedule = SCHEDULE) -> Trainer:
    return Trainer(network or Small(), Numbers(), Target(np.arange(N_ROWS), Y), schedule, CPU)


def weights(trained: Trainer) -> np.ndarray:
    return np.concatenate([p.detach().numpy().ravel() for p in trained.network.parameters()])


def test_it_learns(tmp_path: Path) -> None:
    trained = make()
    trained.fit(tmp_path / "c.safetensors", "key", "small")
    assert trained.losses[0] > 0.9 and np.mean(trained.losses[-6:]) < 0.5
    accuracy = (score_rows(trained.network, Numbers(), np.arange(N_ROWS), CPU).argmax(axis=1) == Y).mean()
    assert accuracy > 0.8


class KilledError(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("step", [1, 6, 7, 23])
def test_a_killed_training_goes_on_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    whole = make()
    whole.fit(tmp_path / "whole.safetensors", "key", "small", lambda: 0.5)
    path = tmp_path / "killed.safetensors"
    monkeypatch.setattr(trainer, "CHECKPOINT_SECONDS", 0.0)
    killed, count = make(), 0
    original = killed._compute_gradients

    def die_at(number: int) -> float:
        if number == step:
            raise KilledError
        return original(number)

    killed._compute_gradients = die_at  # type: ignore[method-assign]
    with pytest.raises(KilledError):
        killed.fit(path, "key", "small", lambda: 0.5)
    torch.manual_seed(count)  # another state than the one that the process was killed in
    resumed = make()
    resumed.fit(path, "key", "small", lambda: 0.5)
    assert weights(resumed).tobytes() == weights(whole).tobytes()
    assert (resumed.losses, resumed.scores) == (whole.losses, whole.scores)
    assert path.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


def test_a_finished_training_is_not_repeated(tmp_path: Path) -> None:
    whole, again = make(), make()
    whole.fit(tmp_path / "c", "key", "small")
    again._compute_gradients = None  # type: ignore[method-assign,assignment]
    again.fit(tmp_path / "c", "key", "small")
    assert weights(again).tobytes() == weights(whole).tobytes()


def test_the_checkpoint_of_another_training_is_not_used(tmp_path: Path) -> None:
    first, second = make(), make()
    first.fit(tmp_path / "c", "key", "small")
    second.fit(tmp_path / "c", "another key", "small")
    assert second.losses == first.losses  # it began at the first step, from the same weights


def out_of_memory(limit: int) -> Callable[[Network], None]:
    """Let a network fail on more rows than this."""

    def check(module: nn.Module, arguments: tuple[object, ...], named: dict[str, torch.Tensor]) -> None:
        if len(named["x"]) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")

    return lambda network: network.register_forward_pre_hook(check, with_kwargs=True) and None


def without_dropout(network: Network) -> Network:
    network.forward = lambda x: network.head(torch.tanh(network.base(x)))  # type: ignore[method-assign,operator]
    return network


def test_a_batch_that_exceeds_the_memory_is_halved_and_the_training_is_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, limited = make(without_dropout(Small())), make(without_dropout(Small()))
    out_of_memory(5)(limited.network)
    whole.fit(tmp_path / "a", "key", "small")
    limited.fit(tmp_path / "b", "key", "small")
    assert weights(limited) == pytest.approx(weights(whole), abs=1e-4)
    assert [record.message for record in caplog.records if "memory" in record.message] == [
        f"out of memory: batches are computed in parts of {rows} rows from now on" for rows in (8, 4)
    ]


def test_one_row_that_exceeds_the_memory_is_an_error_for_the_user(tmp_path: Path) -> None:
    trained = make()
    out_of_memory(0)(trained.network)
    with pytest.raises(UserError, match=r"one text of \d tokens exceeds the memory of cpu: lower that number"):
        trained.fit(tmp_path / "c", "key", "small")


def test_a_loss_that_is_no_number_is_an_error_for_the_user(tmp_path: Path) -> None:
    trained = make()
    with torch.no_grad():
        trained.network.base.weight[0, 0] = float("nan")  # type: ignore[union-attr,index,operator]
    with pytest.raises(UserError, match="small: the loss is not a number at step 1; lower learning_rate"):
        trained.fit(tmp_path / "c", "key", "small")
    assert not (tmp_path / "c").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_an_error_for_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "full").symlink_to("/dev/full")
    monkeypatch.setattr(files, "partial_path", lambda _: tmp_path / "full")
    with pytest.raises(UserError, match=r"c: the checkpoint cannot be written .*free some space and start again"):
        make().fit(tmp_path / "c", "key", "small")


def test_frozen_parameters_are_neither_trained_nor_saved(tmp_path: Path) -> None:
    network = Small()
    network.base.requires_grad_(False)
    before = network.base.weight.clone()
    network.layers = lambda: [list(network.head.parameters())]  # type: ignore[method-assign]
    trained = make(network)
    trained.fit(tmp_path / "c", "key", "small")
    assert torch.equal(network.base.weight, before)
    assert b"base.weight" not in (tmp_path / "c").read_bytes()


def test_lower_layers_learn_more_slowly_and_biases_do_not_decay() -> None:
    groups = make()._parameter_groups()
    assert [group["lr"] for group in groups] == [5e-2, 5e-2, 1e-2, 1e-2]
    assert [group.get("weight_decay") for group in groups] == [None, 0.0, None, 0.0]


def test_the_learning_rate_rises_then_falls_to_nothing() -> None:
    factors = [learning_rate_factor(step, 100) for step in range(100)]
    assert factors[0] == pytest.approx(0.1) and factors[9] == 1.0 and factors[10] == pytest.approx(1.0)
    assert factors[99] == pytest.approx(1 / 90)
    assert np.all(np.diff(factors[:10]) > 0) and np.all(np.diff(factors[10:]) < 0)
    assert learning_rate_factor(-1, 100) == 0


def test_the_base_waits_until_the_new_layer_knows_something(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = make()  # of 24 steps
    base, head = (layer.weight.detach().clone() for layer in (trained.network.base, trained.network.head))  # type: ignore[union-attr,operator]
    compute, seen = trained._compute_gradients, []

    def look(step: int) -> float:
        seen.append((torch.equal(trained.network.base.weight, base), torch.equal(trained.network.head.weight, head)))  # type: ignore[union-attr,arg-type]
        return compute(step)

    monkeypatch.setattr(trained, "_compute_gradients", look)
    trained.fit(tmp_path / "c", "key", "small")
    assert seen[:4] == [(True, True), (True, False), (True, False), (False, False)]


def test_the_estimate_teaches_nothing() -> None:
    trained = make()
    before = weights(trained).copy()
    assert 0 < trained.estimate_seconds() < 60
    assert np.array_equal(weights(trained), before)
    assert all(parameter.grad is None for parameter in trained.network.parameters())
