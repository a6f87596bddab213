# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP responses as far as they have come; the standard library's client is the oracle."""

from __future__ import annotations

import contextlib
import http.client
import io
from typing import Any

import pytest
from ansible_collections.nslab.netns.plugins.module_utils._probe_http import get_request, ok_response, read_response

OK = b"HTTP/1.1 200 OK\r\n"
RESPONSES = [
    OK + b"\r\nuntil the end",
    OK + b"Content-Length: 5\r\n\r\nhello",
    OK + b"content-length:5 \r\nX: y\r\n\r\nhello",
    OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n0002;x=y\r\nlo\r\n0\r\nTrailer: z\r\n\r\n",
    OK + b"Transfer-Encoding: CHUNKED\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n",
    b"HTTP/1.0 404 Not Found\r\n\r\nno",
    b"HTTP/1.1 204\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nhi",
    ok_response({"X-Y": "z"}, "10.0.0.1\n"),
]


class _Connection:
    """What http.client reads from."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, *_arguments: Any) -> io.BytesIO:
        return io.BytesIO(self._data)


@pytest.mark.parametrize("data", RESPONSES)
def test_a_whole_response_is_read_as_others_read_it(data: bytes) -> None:
    oracle = http.client.HTTPResponse(_Connection(data))  # type: ignore[arg-type]
    oracle.begin()
    read = read_response(data, ended=True)
    assert read is not None
    assert (read.status, read.reason, read.body) == (oracle.status, oracle.reason, oracle.read())
    assert read.headers == {name.lower(): value.strip() for name, value in oracle.getheaders()}
    assert read.complete


@pytest.mark.parametrize("data", RESPONSES)
def test_a_part_of_a_response_is_a_part_of_what_the_whole_is(data: bytes) -> None:
    whole = read_response(data, ended=True)
    assert whole is not None
    before = b""
    for size in range(len(data)):
        part = read_response(data[:size], ended=False)
        if part is None:
            assert b"\r\n\r\n" not in data[:size] or data.startswith(b"HTTP/1.1 100")
            continue
        assert part.status == whole.status
        assert whole.body.startswith(part.body)
        assert part.body.startswith(before)
        assert not part.complete or part.body == whole.body
        before = part.body


@pytest.mark.parametrize(
    "data",
    [b"H", b"HTTP/2 200\r\n\r\n", b"HTTP/1.1 20\r\n\r\n", b"HTTP/1.1  200\r\n\r\n", b"\r\n\r\n", b"\0" * 99, b""],
)
def test_what_is_no_response_is_refused_at_the_end(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"response|ended"):
        read_response(data, ended=True)


def test_no_header_is_waited_for_without_end() -> None:
    line = b"X: " + b"y" * 1000 + b"\r\n"
    assert read_response(OK + line * 60, ended=False) is None
    with pytest.raises(ValueError, match="no HTTP response"):
        read_response(OK + line * 70, ended=False)


@pytest.mark.parametrize("cut", range(0, 60, 7))
def test_any_bytes_are_read_or_refused(cut: int) -> None:
    for data in RESPONSES:
        for byte in (0, 10, 13, 48, 58, 255):
            for ended in (False, True):
                with contextlib.suppress(ValueError):
                    read_response(data[:cut] + bytes([byte]) + data[cut + 1 :], ended)


@pytest.mark.parametrize(
    ("address", "port", "host"),
    [
        ("10.0.0.1", 80, "10.0.0.1"),
        ("10.0.0.1", 8080, "10.0.0.1:8080"),
        ("fd00::1", 80, "[fd00::1]"),
        ("fe80::1%eth0", 81, "[fe80::1]:81"),
    ],
)
def test_the_request_names_the_host(address: str, port: int, host: str) -> None:
    line, *headers = get_request(address, port, "/a?b").decode().split("\r\n")
    assert line == "GET /a?b HTTP/1.1"
    assert f"Host: {host}" in headers
    assert headers[-2:] == ["", ""]
