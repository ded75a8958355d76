"""What the environment (API_...) sets, with defaults that are safe on one machine."""

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from rakuten.config import CACHE, LIVE, MODELS, ROOT
from rakuten.errors import UserError

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]
MB = 1_000_000


class ApiSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="API_", extra="ignore", frozen=True, env_ignore_empty=True)

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    # auto: the registry's champion where MLFLOW_TRACKING_URI is set, else the model in models/.
    model: Literal["auto", "local", "registry"] = "auto"
    models: Path = MODELS
    cache: Path = CACHE / "champion"  # the last good model of the registry
    refresh_seconds: Positive = 30.0  # how often a new champion is looked for

    require_keys: Literal["auto", "true", "false"] = "auto"  # auto: unless bound to loopback
    keys_file: Path = ROOT / "keys" / "api_keys.txt"

    max_body_mb: Positive = 16.0
    max_picture_mb: Positive = 10.0
    max_text: Count = 50_000  # characters of a title or description
    max_batch: Count = 100
    queue: Count = 256  # products waiting or being scored; more are sent away with 503
    wait_seconds: Positive = 10.0  # the longest that a product waits to be scored
    rate_per_minute: Annotated[int, Field(ge=0)] = 0  # requests a client; 0: no limit
    threads: Annotated[int, Field(ge=0)] = 0  # that score; 0: one for each core, four at most
    log_text: bool = False  # product text in the log, and in the live log
    live_log: bool = True  # what the monitoring reads: each prediction's features, no text
    live: Path = LIVE
    keep_days: Count = 30  # of the live log

    @property
    def from_registry(self) -> bool:
        """Whether the registry's champion answers, and not the model in `models`."""
        return self.model == "registry" or (self.model == "auto" and bool(os.environ.get("MLFLOW_TRACKING_URI")))

    @property
    def asks_for_keys(self) -> bool:
        return not is_loopback(self.host) if self.require_keys == "auto" else self.require_keys == "true"


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def load_settings() -> ApiSettings:
    """Settings from the environment.

    Raises:
        UserError: a value is unknown or out of range.
    """
    try:
        return ApiSettings()
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"API_{str(first['loc'][0]).upper()}: {first['msg']}") from error
