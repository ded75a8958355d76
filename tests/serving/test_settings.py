"""Settings from the environment."""

from pathlib import Path

import pytest

from rakuten.errors import UserError
from rakuten.serving.settings import ApiSettings, is_loopback, load_settings


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("127.0.0.9", True),
        ("::1", True),
        ("10.0.0.1", False),
        ("0.0.0.0", False),
        ("example.com", False),
    ],
)
def test_loopback_hosts(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("host", "require_keys", "expected"),
    [
        ("127.0.0.1", "auto", False),
        ("::1", "auto", False),
        ("0.0.0.0", "auto", True),
        ("127.0.0.1", "true", True),
        ("0.0.0.0", "false", False),
    ],
)
def test_keys_are_required_off_loopback_unless_set(
    monkeypatch: pytest.MonkeyPatch, host: str, require_keys: str, expected: bool
) -> None:
    monkeypatch.setenv("API_HOST", host)
    monkeypatch.setenv("API_REQUIRE_KEYS", require_keys)
    assert load_settings().keys_required is expected


@pytest.mark.parametrize(
    ("model", "uri", "expected"),
    [
        ("auto", "", False),
        ("auto", "http://127.0.0.1:5000", True),
        ("local", "http://127.0.0.1:5000", False),
        ("registry", "", True),
    ],
)
def test_the_champion_is_served_where_there_is_a_tracking_server(
    monkeypatch: pytest.MonkeyPatch, model: str, uri: str, expected: bool
) -> None:
    monkeypatch.setenv("API_MODEL", model)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert load_settings().from_registry is expected


def test_each_variable_sets_its_field(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "API_PORT": "9000",
        "API_MODELS": "/models",
        "API_CACHE": "/cache",
        "API_REFRESH_SECONDS": "2",
        "API_KEYS_FILE": "/keys",
        "API_MAX_BODY_MB": "1",
        "API_MAX_PICTURE_MB": "0.5",
        "API_MAX_TEXT": "10",
        "API_MAX_BATCH": "3",
        "API_QUEUE": "4",
        "API_WAIT_SECONDS": "5",
        "API_RATE_PER_MINUTE": "6",
        "API_THREADS": "7",
        "API_LOG_TEXT": "true",
        "API_LIVE_LOG": "false",
        "API_LIVE": "/live",
        "API_KEEP_DAYS": "8",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    assert load_settings() == ApiSettings(
        port=9000,
        models=Path("/models"),
        cache=Path("/cache"),
        refresh_seconds=2.0,
        keys_file=Path("/keys"),
        max_body_mb=1.0,
        max_picture_mb=0.5,
        max_text=10,
        max_batch=3,
        queue=4,
        wait_seconds=5.0,
        rate_per_minute=6,
        threads=7,
        log_text=True,
        live_log=False,
        live=Path("/live"),
        keep_days=8,
    )


def test_an_empty_variable_leaves_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_QUEUE", "")
    assert load_settings().queue == 256


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("API_QUEUE", "0", "API_QUEUE: Input should be greater than 0"),
        ("API_PORT", "70000", "API_PORT: Input should be less than or equal to 65535"),
        ("API_MODEL", "best", "API_MODEL: Input should be 'auto', 'local' or 'registry'"),
        ("API_THREADS", "many", "API_THREADS: Input should be a valid integer"),
    ],
)
def test_an_invalid_value_is_refused_with_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        load_settings()
