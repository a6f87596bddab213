# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which version of the collection this is: a module that runs cannot ask galaxy.yml.

Private to the collection: no stable interface.
"""

from __future__ import annotations

VERSION = "0.1.0"
