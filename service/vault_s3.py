"""Where the documents behind links are kept, sealed: a bucket of S3-compatible storage (the extra `s3`)."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING

from service.delivery import PermanentFailure, TransientFailure
from service.privacy import scrub

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_AT_ONCE = 500
_ABOUT = re.compile(r"Object at location \S+ not found: |Error performing \w+ https?:\S+ in \S+ (- )?")
_PATIENCE = timedelta(seconds=20)  # for one request with its repeats; the caller has a schedule of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketVault:
    """Keeps each as an object. `open_bucket` opens it."""

    bucket: "ObjectStore"

    async def put(self, name: str, sealed: bytes) -> None:
        """As `Vault.put`."""
        import obstore  # noqa: PLC0415

        try:  # in one request: parts of an upload that was cut short would stay in the bucket, and cost
            await obstore.put_async(self.bucket, name, sealed, use_multipart=False)
        except (obstore.exceptions.BaseError, OSError) as exc:
            raise _failure(exc) from exc

    async def get(self, name: str) -> bytes | None:
        """As `Vault.get`."""
        import obstore  # noqa: PLC0415

        try:
            found = await obstore.get_async(self.bucket, name)
            return bytes(await found.bytes_async())
        except FileNotFoundError:
            return None
        except (obstore.exceptions.BaseError, OSError) as exc:
            raise _failure(exc) from exc

    async def delete(self, name: str) -> None:
        """As `Vault.delete`."""
        import obstore  # noqa: PLC0415

        try:
            await obstore.delete_async(self.bucket, name)
        except FileNotFoundError:
            return
        except (obstore.exceptions.BaseError, OSError) as exc:
            raise _failure(exc) from exc

    async def names(self, account_id: str, *, after: str | None = None) -> tuple[str, ...]:
        """As `Vault.names`."""
        import obstore  # noqa: PLC0415

        found: list[str] = []
        try:
            async for page in obstore.list(self.bucket, f"{account_id}/", offset=after, chunk_size=_AT_ONCE):
                found += [one["path"] for one in islice(page, _AT_ONCE - len(found))]
                if len(found) == _AT_ONCE:
                    break
        except (obstore.exceptions.BaseError, OSError) as exc:
            raise _failure(exc) from exc
        return tuple(found)


@asynccontextmanager
async def open_bucket(url: str) -> AsyncIterator[BucketVault]:
    """Open the bucket and prefix of `s3://bucket/prefix`; keys, region and endpoint are in AWS_... of the environment.

    Raises `PermanentFailure` when the address will not do.
    """
    import obstore  # noqa: PLC0415  # the settings have looked whether it is there
    from obstore.store import S3Store  # noqa: PLC0415

    try:
        bucket = S3Store.from_url(
            url,
            # An endpoint in one's own network may be http: requests are signed, and what they carry is sealed.
            client_options={"allow_http": True, "timeout": _PATIENCE, "connect_timeout": timedelta(seconds=5)},
            retry_config={"max_retries": 2, "retry_timeout": _PATIENCE},
        )
    except (obstore.exceptions.BaseError, ValueError) as exc:
        raise PermanentFailure(_said(exc)) from exc
    yield BucketVault(bucket=bucket)


def _failure(exc: Exception) -> TransientFailure:
    return TransientFailure(f"the bucket of LINK_STORE: {_said(exc)}")


def _said(exc: Exception) -> str:
    """Return the first line of what went wrong, without what it was about; the others tell of the library's values."""
    first = _ABOUT.sub("", str(exc).strip().partition("\n")[0])
    return scrub(first[:300]) or type(exc).__name__
