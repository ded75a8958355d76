"""The API's settings, from environment variables named API_..., with defaults that are safe on one machine."""

import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from rakuten.config import CACHE, LIVE, MODELS, PROJECT, RAW, ROOT
from rakuten.data.schema import MAX_TEXT
from rakuten.errors import UserError

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]
MB = 1_000_000
ROOT_PATH_PATTERN = re.compile(r"(/[A-Za-z0-9._~-]+)*")


class ApiSettings(BaseSettings):
    """A field is set by the environment variable of its name in capitals, with API_ before it."""

    model_config = SettingsConfigDict(env_prefix="API_", extra="ignore", frozen=True, env_ignore_empty=True)

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    # auto: the registry's champion if MLFLOW_TRACKING_URI is set, else the model in models/
    model: Literal["auto", "local", "registry"] = "auto"
    models: Path = MODELS
    cache: Path = CACHE / "champion"  # the last good model of the registry
    images: Path = RAW / "images"  # pictures of training products, which explanations show where they are here
    refresh_seconds: Positive = 30.0  # between two checks for a new champion

    require_keys: Literal["auto", "true", "false"] = "auto"  # auto: unless bound to loopback
    keys_file: Path = ROOT / "keys" / "api_keys.txt"

    max_body_mb: Positive = 16.0
    max_picture_mb: Positive = 10.0
    max_text: Annotated[int, Field(gt=0, le=MAX_TEXT)] = MAX_TEXT  # characters of a title or description
    max_batch: Count = 100
    max_batch_text: Count = 1_000_000  # characters of all titles and descriptions of a batch
    header_seconds: Positive = 10.0  # until the header of a request is whole
    body_seconds: Positive = 60.0  # until its body is
    max_connections: Count = 512  # open at once; one more closes the oldest that has sent no whole header
    max_connections_per_address: Count = 256  # but of a trusted proxy
    max_buffered_mb: Positive = 64.0  # large bodies of all requests that are read, waiting or scored
    # IP addresses or networks, separated by commas, whose X-Forwarded-For names the client
    trusted_proxies: str = ""
    # Host names, separated by commas, that a request may name besides localhost. With none of them, a server on
    # loopback answers to localhost alone, any other to every name.
    hosts: str = ""
    root_path: str = ""  # under which a reverse proxy serves the API, such as /rakuten

    picture_seconds: Positive = 2.0  # to decode a picture; one that takes longer counts as unusable
    batch_picture_seconds: Positive = 10.0  # to decode those of a batch
    queue: Count = 256  # products waiting or being scored; further ones are refused with 503
    wait_seconds: Positive = 10.0  # a product that has waited longer than this is refused with 503
    rate_per_minute: Annotated[int, Field(ge=0)] = 0  # requests of one client; 0: no limit
    threads: Annotated[int, Field(ge=0)] = 0  # scoring threads; 0: one for each core, four at most
    log_text: bool = False  # product text in the access log and in the prediction log
    live_log: bool = True  # whether to keep the features of each prediction, which the monitoring reads
    live: Path = LIVE  # folder of the prediction log
    keep_days: Count = 30  # logged days before the latest that the prediction log keeps

    # Whether what is answered with needs_review goes into the review desk, with its text and picture.
    review: bool = False
    review_pictures: Path = PROJECT / "data" / "review" / "pictures"  # folder of these pictures
    review_pictures_mb: Positive = 1000.0  # of all of them; beyond that, products come without

    @field_validator("trusted_proxies")
    @classmethod
    def _check_networks(cls, value: str) -> str:
        for network in filter(None, value.split(",")):
            ipaddress.ip_network(network.strip())
        return value

    @field_validator("root_path")
    @classmethod
    def _check_root_path(cls, value: str) -> str:
        if not ROOT_PATH_PATTERN.fullmatch(value):
            raise ValueError("must begin with / and must not end with it, such as /rakuten")
        return value

    @property
    def allowed_hosts(self) -> frozenset[str]:
        """The host names of `hosts`, in lower case."""
        return frozenset(name.strip().lower() for name in self.hosts.split(",") if name.strip())

    def is_trusted_proxy(self, address: str) -> bool:
        """Whether an IP address is among `trusted_proxies`."""
        networks = map(ipaddress.ip_network, (name.strip() for name in self.trusted_proxies.split(",") if name.strip()))
        return any(ipaddress.ip_address(address) in network for network in networks)

    @property
    def from_registry(self) -> bool:
        """Whether to serve the registry's champion rather than the model in `models`."""
        return self.model == "registry" or (self.model == "auto" and bool(os.environ.get("MLFLOW_TRACKING_URI")))

    @property
    def keys_required(self) -> bool:
        """Whether a request needs an API key."""
        return not is_loopback(self.host) if self.require_keys == "auto" else self.require_keys == "true"


def is_loopback(host: str) -> bool:
    """Whether a host name or IP address is this machine's loopback interface."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def load_settings() -> ApiSettings:
    """Read the settings from the environment.

    Raises:
        UserError: a value is invalid or out of range; the message names the variable.
    """
    try:
        return ApiSettings()
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"API_{str(first['loc'][0]).upper()}: {first['msg']}") from error
