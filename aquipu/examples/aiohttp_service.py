"""Sign documents, with aiohttp: ``python -m aquipu.examples.aiohttp_service`` starts it.

``curl localhost:8080/documents/42/signatures --json '{"by": "ada"}'`` signs one."""

import json
import os

from aiohttp import web

from aquipu import Always
from aquipu.contrib.aiohttp import STORE, audit_requests, opened
from aquipu.contrib.audit import Audit, Rule


def relations(request: web.Request) -> set[str]:
    return {f"{name}:{value}" for name, value in request.match_info.items()}


async def sign(request: web.Request) -> web.Response:
    try:
        by = (await request.json())["by"]
    except (ValueError, LookupError, TypeError):
        raise web.HTTPBadRequest(text='send {"by": "your name"}') from None
    return web.json_response(f"{by} has signed {request.match_info['document']}", status=201)


async def history(request: web.Request) -> web.Response:
    found = request.app[STORE].scan(relation=f"document:{request.match_info['document']}")
    return web.json_response([json.loads(record.data) async for record in found])


app = web.Application()
app.cleanup_ctx.append(opened("audit", sync_policy=Always()))
audit_requests(app, Audit(rules=[Rule("POST")], relations=relations, request_body=True))
app.router.add_post(r"/documents/{document:\d+}/signatures", sign)
app.router.add_get(r"/documents/{document:\d+}/history", history)


if __name__ == "__main__":
    web.run_app(app, host="localhost", port=int(os.environ.get("PORT", "8080")))
