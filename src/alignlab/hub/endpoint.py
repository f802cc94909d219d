"""One server that speaks the hub's HTTP interface: the official one, a mirror, or one in the local network.

https://huggingface.co/docs/hub/api; paths, headers and error codes as huggingface_hub 2.4 uses them.
"""

import email.utils
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from alignlab.hub.assets import Asset
from alignlab.hub.errors import HubError, Unreachable
from alignlab.hub.remote_file import RemoteFile, check_paths

try:  # whichever huggingface_hub, and so transformers, comes with
    import httpx2 as httpx
except ImportError:  # before huggingface_hub 2
    import httpx

OFFICIAL = "https://huggingface.co"
Response = httpx.Response


@dataclass(frozen=True)
class Repository:
    """What an endpoint says of an asset at its revision."""

    asset: Asset
    commit: str
    files: tuple[RemoteFile, ...]
    licence: str | None
    gated: bool


class Endpoint:
    """Asks one server. Proxies come from the environment (`https_proxy`, `no_proxy`, SOCKS with httpx's extra).

    Args:
        url: of the server.
        token: sent to this host alone: a redirect to another one (LFS files usually lie elsewhere) goes without.
        timeout: seconds without a byte.
        connections: how many at a time.
    """

    def __init__(
        self, url: str = OFFICIAL, token: str | None = None, timeout: float = 30, connections: int = 16
    ) -> None:
        self.url = url.rstrip("/")
        headers = {
            "Accept-Encoding": "identity",
            "User-Agent": "alignlab",
        }  # bytes as they lie there: ranges count them
        self._own = {"Authorization": f"Bearer {token}"} if token else {}
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._client = httpx.Client(
            headers=headers, timeout=timeout, limits=limits, follow_redirects=True, max_redirects=5
        )

    def describe(self, asset: Asset) -> Repository:
        """Commit, licence and all files of a repository.

        Raises:
            HubError: not there, not allowed.
            Unreachable: this endpoint can't say.
        """
        place = f"{self.url}/api/{asset.type}s/{asset.repo}"
        about = self._json(f"{place}/revision/{quote(asset.revision, safe='')}", asset)
        commit, files = about.get("sha"), []
        if not isinstance(commit, str) or len(commit) != 40:
            raise Unreachable(f"{self.url} names no commit for {asset.name}@{asset.revision}")
        page = f"{place}/tree/{commit}?recursive=true"
        while page:
            response = self._get(page, asset)
            files += [_remote_file(entry) for entry in response.json() if entry.get("type") == "file"]
            page = response.links.get("next", {}).get("url")
        check_paths(files, asset.name)
        card = about.get("cardData") or {}
        licence = card.get("license") if isinstance(card, dict) else None
        return Repository(asset, commit, tuple(files), str(licence) if licence else None, bool(about.get("gated")))

    @contextmanager
    def open(self, asset: Asset, commit: str, path: str, headers: dict[str, str]) -> Iterator[Response]:
        """The answer to a request for a file's bytes; its status is 200, 206 or 416."""
        prefix = "datasets/" if asset.type == "dataset" else ""
        url = f"{self.url}/{prefix}{asset.repo}/resolve/{commit}/{quote(path)}"
        with _said(self.url), self._client.stream("GET", url, headers=headers | self._own) as response:
            if response.status_code != 416:
                self._check(response, asset, path)
            yield response

    def close(self) -> None:
        self._client.close()

    def _json(self, url: str, asset: Asset) -> dict[str, Any]:
        answer = self._get(url, asset).json()
        return answer if isinstance(answer, dict) else {}

    def _get(self, url: str, asset: Asset) -> Response:
        with _said(self.url):
            response = self._client.get(url, headers=self._own)
            self._check(response, asset, None)
            return response

    def _check(self, response: Response, asset: Asset, path: str | None) -> None:
        status, code = response.status_code, response.headers.get("X-Error-Code", "")
        if status in (200, 206):
            return
        what = asset.name if path is None else f"{path} of {asset.name}"
        if code == "GatedRepo" or status == 403:
            raise HubError(f"{what}: gated: accept its terms at {OFFICIAL}/{asset.name} and set HF_TOKEN")
        if code == "RevisionNotFound":
            raise HubError(f"{asset.name} has no revision {asset.revision!r}")
        if code == "RepoNotFound" or status == 401:
            other = f"datasets/{asset.repo}" if asset.type == "model" else asset.repo
            raise HubError(f"{what}: no such repository, or a private one (HF_TOKEN); or {other}?")
        if status == 404:
            raise HubError(f"{what}: not there")
        raise Unreachable(f"{self.url} answers {status} for {what}", _wait(response))


@contextmanager
def _said(url: str) -> Iterator[None]:
    """Failures of the network as `Unreachable`, by cause."""
    try:
        yield
    except httpx.ProxyError as error:
        raise Unreachable(f"{url}: the proxy says: {error}") from None
    except httpx.TimeoutException:
        raise Unreachable(f"{url}: no byte within the timeout") from None
    except httpx.TransportError as error:
        kind = "TLS: " if "CERTIFICATE" in str(error).upper() else ""
        raise Unreachable(f"{url}: {kind}{error or type(error).__name__}") from None
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.TooManyRedirects) as error:
        raise Unreachable(f"{url}: {error}") from None


def _wait(response: Response) -> float | None:
    value = response.headers.get("Retry-After")
    if value is None:
        return None
    if value.isdigit():
        return float(value)
    when = email.utils.parsedate_to_datetime(value) if email.utils.parsedate(value) else None
    return max(0.0, when.timestamp() - time.time()) if when else None


def _remote_file(entry: dict[str, Any]) -> RemoteFile:
    large = entry.get("lfs") or {}
    digest = large.get("oid", entry["oid"]).removeprefix("sha256:")
    return RemoteFile(entry["path"], large.get("size", entry["size"]), digest)


def endpoints(urls: list[str], timeout: float, connections: int) -> list[Endpoint]:
    """Servers in the order in which they are asked: those named, or HF_ENDPOINT, or the official one. The token of
    HF_TOKEN, or of `hf auth login`, belongs to the first of them alone.
    """
    from huggingface_hub import get_token

    urls = urls or [os.environ.get("HF_ENDPOINT") or OFFICIAL]
    return [Endpoint(url, None if number else get_token(), timeout, connections) for number, url in enumerate(urls)]
