"""s3://bucket/key, or s3://bucket/prefix/ for all below it. Endpoint and credentials come from the environment."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import boto3  # type: ignore[import-untyped]
from botocore import UNSIGNED  # type: ignore[import-untyped]
from botocore.config import Config  # type: ignore[import-untyped]
from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]
from urllib3.exceptions import HTTPError

from controllers.model_cache.download import READ_BYTES, Part, RemoteFile, is_hidden, safe_path
from controllers.model_cache.errors import FetchError, Interrupted, SourceRefused
from controllers.model_cache.sources.blocking import Body, in_thread, pieces
from controllers.plans.model_volume import cached_name

_EXPECTED: Final = (BotoCoreError, ClientError, HTTPError, OSError)
_CHANGED: Final = ("PreconditionFailed", "412")
MOST_OBJECTS: Final = 10_000
"""Models have hundreds of files; a bucket may have billions of objects."""


class S3Source:
    """An object, or all objects below a prefix."""

    def __init__(self, uri: str) -> None:
        parts = urlsplit(uri)
        self._bucket, self._key = parts.netloc, parts.path.lstrip("/")
        self._name = cached_name(uri)
        self._made: Any = None
        self._closed = False

    async def files(self) -> Sequence[RemoteFile]:
        return await in_thread(self._list, self._explain, *_EXPECTED)

    async def read(self, file: RemoteFile, offset: int) -> Part:
        answer = await in_thread(lambda: self._get(file, offset), self._explain, *_EXPECTED)
        # A store that does not know ranges answers 200 without ContentRange, from the beginning.
        start = offset if answer.get("ContentRange") else 0
        body = Body(answer["Body"].__enter__())  # So urllib3's answer is told, which the library wraps.
        return Part(start, file.size_bytes, pieces(body, READ_BYTES, self._explain, *_EXPECTED))

    async def close(self) -> None:
        self._closed = True
        if self._made is not None:
            self._made.close()

    def _list(self) -> list[RemoteFile]:
        if self._key and not self._key.endswith("/"):
            head = self._client().head_object(Bucket=self._bucket, Key=self._key)
            return [RemoteFile(safe_path(self._name), head["ContentLength"], head["ETag"], where=self._key)]
        named = [(one["Key"].removeprefix(self._key), one) for one in self._below() if not one["Key"].endswith("/")]
        found = [(name, one) for name, one in named if not is_hidden(name)]
        if not found:
            raise SourceRefused(f"Bucket '{self._bucket}' has nothing below '{self._key}'. Check spec.source.")
        return [RemoteFile(safe_path(name), one["Size"], one["ETag"], where=one["Key"]) for name, one in found]

    def _below(self) -> list[Any]:
        """All objects below the prefix. Stops between two pages once the source is closed: nobody waits for it then."""
        found: list[Any] = []
        for page in self._client().get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._key):
            found += page.get("Contents") or []
            if len(found) > MOST_OBJECTS:
                raise SourceRefused(
                    f"Bucket '{self._bucket}' has over {MOST_OBJECTS} objects below '{self._key}';"
                    " name a narrower prefix."
                )
            if self._closed:
                break
        return found

    def _get(self, file: RemoteFile, offset: int) -> Any:
        wanted = {"Range": f"bytes={offset}-"} if offset else {}
        return self._client().get_object(Bucket=self._bucket, Key=file.where, IfMatch=file.version, **wanted)

    def _client(self) -> Any:
        """Made on first use, in a thread: it reads many files."""
        if self._made is None:
            session = boto3.session.Session()
            anonymous = {} if session.get_credentials() else {"signature_version": UNSIGNED}
            own = any(os.environ.get(name) for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"))
            self._made = session.client(
                "s3",
                region_name=session.region_name or "us-east-1",
                config=Config(
                    connect_timeout=10,
                    read_timeout=60,
                    retries={"max_attempts": 2},
                    response_checksum_validation="when_required",
                    # Stores inside a cluster rarely have a DNS name for each bucket.
                    s3={"addressing_style": "path" if own else "auto"},
                    **anonymous,
                ),
            )
        return self._made

    def _explain(self, error: Exception) -> FetchError:
        where = f"s3://{self._bucket}/{self._key}"
        if not isinstance(error, ClientError):
            return Interrupted(f"{where}: the store did not answer ({type(error).__name__}); it will be continued.")
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code in _CHANGED:
            return Interrupted(f"{where} changed while it was fetched; it is fetched again.")
        if 400 <= status < 500 and status not in (408, 429):
            return SourceRefused(
                f"{where}: the store answered {status} {code}. Check spec.source and the node agent's credentials."
            )
        return Interrupted(f"{where}: the store answered {status} {code}; it is tried again.")
