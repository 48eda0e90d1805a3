"""Sign documents, with FastAPI: a signature is on the disk before the client hears of it.

Start it with ``uvicorn aquipu.examples.fastapi_service:app``; then ``curl
localhost:8000/documents/42/signatures --json '{"by": "ada"}'`` and ``curl
localhost:8000/documents/42/history``.
"""

import json
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request
from pydantic import BaseModel

from aquipu import Always, Store
from aquipu.contrib.audit import Audit, Rule
from aquipu.contrib.starlette import AuditMiddleware, get_store, lifespan


class Signature(BaseModel):
    by: str


def relations(request: Request) -> set[str]:
    return {f"{name}:{value}" for name, value in request.path_params.items()}


app = FastAPI(lifespan=lifespan("audit", sync_policy=Always()))
app.add_middleware(
    AuditMiddleware, audit=Audit(rules=[Rule("POST")], relations=relations, request_body=True)
)


@app.post("/documents/{document}/signatures", status_code=201)
async def sign(document: int, signature: Signature) -> str:
    return f"{signature.by} has signed {document}"


@app.get("/documents/{document}/history")
async def history(document: int, store: Annotated[Store, Depends(get_store)]) -> list[Any]:
    return [json.loads(record.data) async for record in store.scan(relation=f"document:{document}")]
