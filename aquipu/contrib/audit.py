"""Auditing of requests: which ones, what is stored of them, when, and what if it cannot be.

A handler runs; its response is ready; the entry is stored; the response goes out. In that order a
client that has its answer has its record, whatever happens to the service next. What that costs the
client is one commit, shared with all requests that are at this point at the same time.

* ``commit="before_response"``: the status line is not sent before the entry is at the stage of the
  store's policy (or at ``durability``). A client that got its status has its record.
* ``commit="after_response"``: the entry is stored when the response has been sent, and covers all
  of it. A crash between the two takes the entry.
* ``commit="before_handler"``: an entry of what is asked for, with ``"intent": true``, is at that
  stage before the handler runs, so nothing is done without a trace. What became of it follows when
  the response has been sent, as a second entry with the same ``id`` and ``"supplement": true``. An
  intent without it: the service ended in between, and the request may have been carried out.
* ``on_error="fail"``: an entry that cannot be stored costs the client its response: 503 instead
  (after the response, the error is raised for the server to log). The handler has run by then, and
  what it did stays. An intent that cannot be stored keeps the handler from running: 503, and
  nothing was done.
* ``on_error="log"``: the error is logged, and the response goes on.

**A response that is streamed** is not over, and may never be, when it begins. Before it begins, its
entry holds what is known: status, headers, the request. When it then ends as it should, nothing is
added. When it does not (the handler raises, is cancelled, or ends early; the client leaves), a
second entry says so, with the same ``id`` and ``"supplement": true``. If you want to know how
long every stream took and how it ended audits after the response. If response bodies are asked for
as well as ``before_response``, the status line waits for the first piece of the body, so that the
entry of an ordinary response holds its body; of a stream it holds that first piece, ``truncated``.

**Errors.** A handler that raises is audited with the ``error``, and with the ``status`` of the page
that the application itself has for such errors. If it has none, ``status`` is null: what the client
gets (a 500) is made further out. **Cancelled** requests do not wait for their entry: it is
accepted, and written as everything that was accepted is.

After a `StoreFailedError` or `OutcomeUnknownError` the outcome is unknown: an entry whose request
was answered with 503 may be found in the log later. A disk that hangs holds up the responses for as
long; a server or a proxy that limits the time of a request cancels them.

The functions of the service get the framework's own request, after the handler: what authentication
left in its state is there. They must not wait. For an intent they are asked before the handler as
well: of the request is there then what middleware outside of the audit has left, in aiohttp also
the parameters of its path. An intent is stored also when ``filter_after`` says False, as that has
left it; its answer is about the supplement.

**What is no request of its own**, such as a login, has an entry by ``await record(request,
action="login")`` of `aquipu.contrib.starlette` and `aquipu.contrib.aiohttp`.

**Nothing that a request holds, and no function that raises, keeps its entry from being stored**:
the entry is stored with what can be of it, and says what is missing (see `altered`). The error of a
function is logged. When it was ``filter_after``, what that was to take out is not known: the query,
the headers and the bodies are left out. So ``on_error`` is about the store alone.
"""

from __future__ import annotations

from aquipu.contrib.auditing.audit import Audit, Commit, OnError
from aquipu.contrib.auditing.coverage import REQUESTS_PER_RULE, Coverage
from aquipu.contrib.auditing.rule import Rule
from aquipu.contrib.auditing.trail import NOT_DONE, UNRECORDED, Trail
from aquipu.contrib.shared.entry import KEPT_HEADERS, REDACTED_HEADERS, Entry

__all__ = [
    "KEPT_HEADERS",
    "NOT_DONE",
    "REDACTED_HEADERS",
    "REQUESTS_PER_RULE",
    "UNRECORDED",
    "Audit",
    "Commit",
    "Coverage",
    "Entry",
    "OnError",
    "Rule",
    "Trail",
]
