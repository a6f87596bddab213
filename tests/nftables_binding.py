# Copyright (c) nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""nftables' Python binding for tests that ask nftables thousands of times: a process less for each question.

As on a managed host, where the distribution's Python has it. Where the distribution's is not installed, there is one of
the same make, with as much of it as is used.
"""

from __future__ import annotations

import ctypes
import importlib.util
import sys
import types
from pathlib import Path

_DISTRIBUTIONS = Path("/usr/lib/python3/dist-packages/nftables/__init__.py")


def provide() -> None:
    """Let `import nftables` find one."""
    if "nftables" in sys.modules or importlib.util.find_spec("nftables"):
        return
    if not _DISTRIBUTIONS.exists():
        sys.modules["nftables"] = made = types.ModuleType("nftables")
        made.Nftables = Nftables  # type: ignore[attr-defined]
        return
    spec = importlib.util.spec_from_file_location(
        "nftables", _DISTRIBUTIONS, submodule_search_locations=[str(_DISTRIBUTIONS.parent)]
    )
    assert spec is not None
    assert spec.loader is not None
    sys.modules["nftables"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["nftables"])


class Nftables:
    """A context of libnftables."""

    #: libnftables.h: NFT_CTX_OUTPUT_JSON, NFT_CTX_OUTPUT_NUMERIC_PROTO
    _JSON, _NUMERIC_PROTOCOLS = 1 << 4, 1 << 7

    def __init__(self) -> None:
        self._library = library = ctypes.CDLL("libnftables.so.1")
        library.nft_ctx_new.restype = ctypes.c_void_p
        library.nft_ctx_get_output_buffer.restype = library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
        self._context = ctypes.c_void_p(library.nft_ctx_new(0))
        library.nft_ctx_buffer_output(self._context)
        library.nft_ctx_buffer_error(self._context)

    def __del__(self) -> None:
        self._library.nft_ctx_free(self._context)

    def set_json_output(self, wanted: bool) -> None:
        self._set(self._JSON, wanted)

    def set_numeric_proto_output(self, wanted: bool) -> None:
        self._set(self._NUMERIC_PROTOCOLS, wanted)

    def _set(self, flag: int, wanted: bool) -> None:
        flags = self._library.nft_ctx_output_get_flags(self._context) & ~flag
        self._library.nft_ctx_output_set_flags(self._context, flags | (flag if wanted else 0))

    def cmd(self, commands: bytes) -> tuple[int, bytes, bytes]:
        """Its status, and what it prints on both outputs."""
        status = self._library.nft_run_cmd_from_buffer(self._context, commands)
        output = self._library.nft_ctx_get_output_buffer(self._context)
        return status, output, self._library.nft_ctx_get_error_buffer(self._context)
