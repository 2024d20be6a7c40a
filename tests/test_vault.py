"""Where sealed documents are kept: the same promises by a database, a folder and a bucket; and the seal itself."""

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.delivery import TransientFailure, Vault
from service.sealing import KEY_BYTES, Seal, Unreadable
from service.store import SqlStore, open_store
from service.vault import AT_ONCE, DatabaseVault, FolderVault
from service.vault_s3 import BucketVault, open_bucket
from tests.fakes import ACCOUNT, MovedClock

SEAL = Seal(key=bytes(range(KEY_BYTES)))
NAME = f"{ACCOUNT}/20261122100000-{'a' * 64}"


def folder(tmp_path: Path, _store: SqlStore) -> Vault:
    return FolderVault(folder=tmp_path / "documents")


def database(_tmp_path: Path, store: SqlStore) -> Vault:
    return DatabaseVault(store=store)


def memory(_tmp_path: Path, _store: SqlStore) -> Vault:
    stores = pytest.importorskip("obstore.store")
    return BucketVault(bucket=stores.MemoryStore())


@pytest.fixture(params=[folder, database, memory], ids=lambda made: made.__name__)
def vault(request: pytest.FixtureRequest, tmp_path: Path, store: SqlStore) -> Vault:
    made: Callable[[Path, SqlStore], Vault] = request.param
    return made(tmp_path, store)


async def test_what_is_put_is_there_until_it_is_deleted(vault: Vault) -> None:
    assert await vault.get(NAME) is None
    await vault.put(NAME, b"\x00sealed\xff")
    assert await vault.get(NAME) == b"\x00sealed\xff"
    await vault.put(NAME, b"sealed again")
    assert await vault.get(NAME) == b"sealed again"
    assert await vault.names(ACCOUNT) == (NAME,)
    await vault.delete(NAME)
    await vault.delete(NAME)
    assert (await vault.get(NAME), await vault.names(ACCOUNT)) == (None, ())


async def test_ten_megabytes_go_in_and_out(vault: Vault) -> None:
    document = os.urandom(1 << 20) * 10
    await vault.put(NAME, document)
    assert await vault.get(NAME) == document


async def test_names_come_in_their_order_a_page_at_a_time_and_of_one_account(vault: Vault) -> None:
    wanted = [f"{ACCOUNT}/2026112210{n:04}-{n % 7}" for n in range(AT_ONCE + 3)]
    for name in reversed(wanted):
        await vault.put(name, b"x")
    for other in ("T12345679/20200101000000-x", "T1234567/20200101000000-x", f"{ACCOUNT}0/20200101000000-x"):
        await vault.put(other, b"x")
    first = await vault.names(ACCOUNT)
    assert first == tuple(wanted[:AT_ONCE])
    assert await vault.names(ACCOUNT, after=first[-1]) == tuple(wanted[AT_ONCE:])
    assert await vault.names(ACCOUNT, after=wanted[-1]) == ()


async def test_a_file_is_for_this_user_alone_and_half_a_file_is_none(tmp_path: Path) -> None:
    vault = FolderVault(folder=tmp_path / "documents")
    await vault.put(NAME, b"sealed")
    assert [(tmp_path / "documents" / name).stat().st_mode & 0o077 for name in (NAME, ACCOUNT)] == [0, 0]
    assert [path.name for path in (tmp_path / "documents" / ACCOUNT).iterdir()] == [NAME.partition("/")[2]]
    (tmp_path / "documents" / f"{NAME}.0123").write_bytes(b"half")  # what a crash leaves
    assert await vault.get(NAME) == b"sealed"
    assert await vault.names(ACCOUNT) == (NAME, f"{NAME}.0123")


async def test_no_name_leads_out_of_the_folder(tmp_path: Path) -> None:
    vault = FolderVault(folder=tmp_path / "documents")
    for name in ("../secret", f"{ACCOUNT}/../../secret", "/etc/passwd"):
        with pytest.raises(ValueError, match="leads out"):
            await vault.get(name)


async def test_a_folder_that_cannot_be_written_is_for_now(tmp_path: Path) -> None:
    (tmp_path / "documents").write_bytes(b"a file is in the way")
    vault = FolderVault(folder=tmp_path / "documents")
    with pytest.raises(TransientFailure, match="the folder of LINK_STORE"):
        await vault.put(NAME, b"sealed")


async def test_a_bucket_that_nobody_answers_for_is_for_now() -> None:
    stores = pytest.importorskip("obstore.store")
    bucket = stores.S3Store(
        "bucket",
        endpoint="http://127.0.0.1:9",
        access_key_id="an-id",
        secret_access_key="a-secret-key",
        region="eu-north-1",
        client_options={"allow_http": True, "timeout": timedelta(seconds=1)},
        retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=1)},
    )
    vault = BucketVault(bucket=bucket)
    with pytest.raises(TransientFailure, match="the bucket of LINK_STORE") as put:
        await vault.put(NAME, b"sealed")
    with pytest.raises(TransientFailure) as got:
        await vault.get(NAME)
    assert "\n" not in put.value.reason + got.value.reason
    assert "a-secret-key" not in put.value.reason
    assert "a" * 64 not in put.value.reason + got.value.reason
    assert "error sending request" in put.value.reason


async def test_a_bucket_opens_without_being_asked_anything() -> None:
    pytest.importorskip("obstore")
    async with open_bucket("s3://a-bucket/a/prefix") as vault:
        assert isinstance(vault, BucketVault)


async def test_another_process_finds_what_one_put_into_the_database(database_url: str) -> None:
    clock = MovedClock()
    async with open_store(database_url, clock=clock) as one, open_store(database_url, clock=clock) as other:
        await DatabaseVault(store=one).put(NAME, b"sealed")
        assert await DatabaseVault(store=other).get(NAME) == b"sealed"


@given(st.binary(max_size=300), st.text(max_size=20))
def test_a_seal_opens_what_it_closed_and_shows_nothing_of_it(content: bytes, about: str) -> None:
    sealed = SEAL.close(content, about=about)
    assert SEAL.open(sealed, about=about) == content
    assert len(content) < 4 or content not in sealed
    assert SEAL.close(content, about=about) != sealed


@pytest.mark.parametrize("at", [0, 1, 12, 13, -1])
def test_a_changed_byte_is_noticed(at: int) -> None:
    sealed = bytearray(SEAL.close(b"%PDF", about=NAME))
    sealed[at] ^= 1
    with pytest.raises(Unreadable):
        SEAL.open(bytes(sealed), about=NAME)


@pytest.mark.parametrize("sealed", [b"", b"\x01", b"\x01" + bytes(11), b"\x01" + bytes(12), b"\x02" + bytes(40)])
def test_what_was_never_sealed_does_not_open(sealed: bytes) -> None:
    with pytest.raises(Unreadable):
        SEAL.open(sealed, about=NAME)


def test_a_seal_is_for_one_thing_and_one_key() -> None:
    sealed = SEAL.close(b"%PDF", about=NAME)
    with pytest.raises(Unreadable):
        SEAL.open(sealed, about=f"{NAME}x")
    with pytest.raises(Unreadable):
        Seal(key=bytes(KEY_BYTES)).open(sealed, about=NAME)
    assert "key" not in repr(SEAL)
