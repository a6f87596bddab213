# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""As much of HTTP/1.1 (RFC 9112) as a probe speaks: one request, and the response as far as it has come.

Knows nothing of sockets. Private to the collection: no stable interface.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

MAX_RESPONSE = 1 << 20  # bytes: a probe reads no more of a response, and looks for its text in these
_MAX_HEAD = 1 << 16  # bytes: what has no end of its header by then is no response

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9]\d\d)(?: (.*))?")


@dataclass(frozen=True)
class Response:
    """A response as far as it has come.

    headers: by their names in lower case.
    body: without the framing of a chunked one.
    complete: nothing more comes.
    """

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes
    complete: bool


def get_request(address: str, port: int, path: str) -> bytes:
    """Write the request for a path; ``Connection: close`` makes the end of the response the end of the connection."""
    host = f"[{address.partition('%')[0]}]" if ":" in address else address
    name = host if port == 80 else f"{host}:{port}"
    lines = (f"GET {path} HTTP/1.1", f"Host: {name}", "User-Agent: nslab.netns", "Accept: */*", "Connection: close")
    return "\r\n".join((*lines, "", "")).encode("ascii")


def ok_response(headers: Mapping[str, str], body: str) -> bytes:
    """Write a response that says 200."""
    fixed = {"Content-Type": "text/plain", "Content-Length": str(len(body)), "Connection": "close"}
    lines = [f"{name}: {value}" for name, value in {**fixed, **headers}.items()]
    return "\r\n".join(("HTTP/1.1 200 OK", *lines, "", body)).encode("ascii")


def read_response(data: bytes, ended: bool) -> Response | None:
    """Read what has come; None if that is no whole header yet. ``ended``: nothing more comes.

    An interim response (103 Early Hints) is passed over. Raises ValueError for what is no HTTP response.
    """
    while True:
        head, blank_line, body = data.partition(b"\r\n\r\n")
        if data[:7] != b"HTTP/1."[: len(data)] or (not blank_line and len(data) > _MAX_HEAD):
            raise ValueError(f"no HTTP response: {shown(data)}")
        if not blank_line:
            if ended:
                raise ValueError(f"the connection ended within the header: {shown(data)}" if data else "no response")
            return None
        status_line, *lines = head.split(b"\r\n")
        match = _STATUS_LINE.fullmatch(status_line)
        if not match:
            raise ValueError(f"no HTTP response: {shown(status_line)}")
        status = int(match[1])
        if status >= 200 or status == 101:
            break
        data = body
    pairs = (line.decode("latin-1").partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _colon, value in pairs}
    if status in (101, 204, 304):
        body, complete = b"", True
    elif headers.get("transfer-encoding", "").lower().endswith("chunked"):
        body, complete = _without_chunks(body)
    elif headers.get("content-length", "").isdigit():
        length = int(headers["content-length"])
        body, complete = body[:length], len(body) >= length
    else:
        complete = False
    return Response(status, (match[2] or b"").decode("latin-1").strip(), headers, body, complete or ended)


def _without_chunks(data: bytes) -> tuple[bytes, bool]:
    """Join the chunks that have come, also a part of one; and say whether the last one has. Raises ValueError."""
    parts: list[bytes] = []
    while True:
        line, end, data = data.partition(b"\r\n")
        if not end:
            return b"".join(parts), False
        digits = line.partition(b";")[0].strip()
        if not re.fullmatch(rb"[0-9a-fA-F]{1,8}", digits):
            raise ValueError(f"a chunk of the body without its length: {shown(line)}")
        length = int(digits, 16)
        if length == 0:
            return b"".join(parts), True
        parts.append(data[:length])
        data = data[length + 2 :]


def shown(data: bytes) -> str:
    """Show the beginning of what came, on one line."""
    text = data[:60].decode("utf-8", "replace")
    return repr(text) + (f" ... ({len(data)} bytes)" if len(data) > 60 else "")
