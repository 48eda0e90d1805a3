"""The example with Flask as several processes serve it.

The workers of ``gunicorn tests.services.flask_app:shared`` share the store; of ``:connected`` a
daemon writes it, which listens at ``audit.sock``.
"""

from __future__ import annotations

import aquipu.sync
from aquipu import Always
from aquipu.contrib.wsgi import AuditMiddleware
from aquipu.examples.flask_service import app, audit

_app = app.wsgi_app.app  # type: ignore[attr-defined]
connected = AuditMiddleware(_app, lambda: aquipu.sync.open("unix:audit.sock"), audit)
shared = AuditMiddleware(
    _app, lambda: aquipu.sync.open("audit", shared=True, sync_policy=Always()), audit
)
