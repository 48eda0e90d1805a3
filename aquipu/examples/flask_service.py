"""Sign documents, with Flask: a signature is on the disk before the client hears of it.

Start it with ``gunicorn --threads 8 aquipu.examples.flask_service:app``; then ``curl
localhost:8000/documents/42/signatures --json '{"by": "ada"}'`` and ``curl
localhost:8000/documents/42/history``.
"""

import json
from typing import Any

from flask import Flask, jsonify, request

import aquipu.sync
from aquipu import Always
from aquipu.contrib.audit import Audit, Rule
from aquipu.contrib.wsgi import AuditMiddleware, get_store


def relations(environ: dict[str, Any]) -> set[str]:
    return {f"{name}:{value}" for name, value in (request.view_args or {}).items()}


audit = Audit(rules=[Rule("POST")], relations=relations, request_body=True)
app = Flask(__name__)
app.wsgi_app = AuditMiddleware(  # type: ignore[method-assign]
    app.wsgi_app, lambda: aquipu.sync.open("audit", sync_policy=Always()), audit
)


@app.post("/documents/<int:document>/signatures")
def sign(document: int) -> Any:
    return jsonify(f"{request.get_json()['by']} has signed {document}"), 201


@app.get("/documents/<int:document>/history")
def history(document: int) -> Any:
    found = get_store(request).scan(relation=f"document:{document}")
    return jsonify([json.loads(record.data) for record in found])
