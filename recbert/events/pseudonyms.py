"""Keyed pseudonyms for user ids."""

from __future__ import annotations

import hashlib
import hmac
import os
from pathlib import Path
from typing import Any

import narwhals as nw
import pyarrow as pa

from recbert.events.columns import ORDER, USER_ID
from recbert.events.engine import collect, open_frame, place_beside
from recbert.events.messages import check_columns

KEY_VARIABLE = "RECBERT_PSEUDONYM_KEY"
MINIMUM_KEY_BYTES = 16
PSEUDONYM_CHARACTERS = 32

_PSEUDONYM = "_pseudonym"


def pseudonymise(events: Any, key: bytes) -> Any:
    """The events with each user id replaced by 32 hex characters of its HMAC-SHA256 under the key.

    The same key gives the same pseudonyms, so that tables read on different days still join; without the key
    they can be neither reversed nor recomputed. Run it before `clean_events`, whose report shows example
    rows.

    Args:
        events: canonical events of any kind; the kind is kept.
        key: at least 16 bytes, see `read_pseudonym_key`. It is written nowhere.

    Raises:
        ValueError: if the key is too short or the table has no user column.
    """
    _check_key(key)
    frame, restore = open_frame(events)
    names = frame.collect_schema().names()
    check_columns(names, [USER_ID], "events")
    # The hash is no expression of any engine: the distinct users leave it once and come back with pseudonyms.
    distinct = frame.select(USER_ID).unique().filter(~nw.col(USER_ID).is_null())
    users = collect(distinct).to_arrow().column(USER_ID)
    pseudonyms = [hash_user(user, key) for user in users.to_pylist()]
    mapping = pa.table({USER_ID: users, _PSEUDONYM: pa.array(pseudonyms, type=pa.string())})
    frame = frame.join(place_beside(frame, mapping), on=USER_ID, how="left")
    frame = frame.with_columns(nw.col(_PSEUDONYM).alias(USER_ID)).select(*names)
    return restore(frame.sort(ORDER) if ORDER in names else frame)


def hash_user(user_id: str, key: bytes) -> str:
    """The pseudonym of one user id: the first 32 hex characters of its HMAC-SHA256.

    >>> hash_user("alice", b"0123456789abcdef")
    'fdbf8b1cacd3d578e062d0e41104357d'
    """
    return hmac.new(key, user_id.encode(), hashlib.sha256).hexdigest()[:PSEUDONYM_CHARACTERS]


def read_pseudonym_key(env: str = KEY_VARIABLE, file: str | os.PathLike[str] | None = None) -> bytes:
    """The key from a file if one is named, else from an environment variable; never from the command line.

    Args:
        env: name of the environment variable.
        file: path of a file that holds the key; white space around it is cut off.

    Raises:
        FileNotFoundError: if the file is absent.
        ValueError: if there is no key, or it has fewer than 16 bytes. The message never shows it.
    """
    if file is not None:
        path = Path(file)
        if not path.is_file():
            raise FileNotFoundError(f"no pseudonym key file {str(path)!r}")
        key = path.read_bytes().strip()
    else:
        key = os.environ.get(env, "").strip().encode()
        if not key:
            raise ValueError(
                f"pseudonyms need a key: set the environment variable {env}, or name a file that holds one; "
                "`openssl rand -hex 32` makes one"
            )
    _check_key(key)
    return key


def _check_key(key: bytes) -> None:
    if len(key) < MINIMUM_KEY_BYTES:
        raise ValueError(f"the pseudonym key has {len(key)} bytes: at least {MINIMUM_KEY_BYTES} are needed")
