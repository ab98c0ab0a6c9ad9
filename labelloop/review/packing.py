"""JSON as the ledger keeps it and servers take it."""

from __future__ import annotations

import json
import zlib
from typing import Any


def pack_json(document: Any) -> bytes:
    """Compressed JSON, for the ledger."""
    return pack_text(compact_json(document))


def compact_json(document: Any) -> str:
    """JSON as it goes to a server, without blanks."""
    return json.dumps(document, separators=(",", ":"))


def pack_text(text: str) -> bytes:
    """ASCII text, compressed."""
    return zlib.compress(text.encode("ascii"), 1)


def unpack_json(packed: bytes) -> Any:
    """The inverse of ``pack_json``."""
    return json.loads(zlib.decompress(packed))
