"""CRC32C (RFC 3720, appendix B.4), the checksum of everything that aquipu writes."""

from __future__ import annotations

from collections.abc import Callable

import google_crc32c

extend: Callable[[int, bytes], int] = google_crc32c.extend
"""``extend(start, data)``: CRC32C of ``data``, continued from ``start`` (0 to begin)."""
