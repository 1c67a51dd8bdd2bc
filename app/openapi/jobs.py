"""The routes of jobs, and the answer of a call that became one."""

from __future__ import annotations

from typing import Any

from app.openapi.components import Json, ref
from app.openapi.replies import ASKS, answer, json_of, parameters, problems

TAKEN = answer(
    "It is a job, as it was asked to be.",
    json_of(ref("Job")),
    Location="Location",
    Preference_Applied="PreferenceApplied",
)

_EVENTS = """Server-Sent Events: `progress` (state, position and progress), `collected` (values of `collect`, by name,
as they come), `done` (the job, without its result) or `problem`. To go on after a broken connection send
`Last-Event-ID`, as browsers do. A comment comes every 15 s. Leaving cancels nothing."""


def _call(name: str, summary: str, replies: Json, description: str = "", **rest: Any) -> Json:
    told = {"description": description} if description else {}
    return {"tags": ["jobs"], "operationId": name, "summary": summary, **told, **rest, "responses": replies}


def paths() -> Json:
    """Path -> path item."""
    one = parameters("JobPath")
    known = problems((*ASKS, 404, 503))
    return {
        "/v1/jobs": {
            "get": _call(
                "list_jobs",
                "List your jobs",
                {"200": answer("Your jobs, the oldest first.", json_of(ref("JobList"))), **problems((*ASKS, 503))},
                "Without their results.",
                parameters=parameters("Limit", "Cursor"),
            ),
        },
        "/v1/jobs/{id}": {
            "get": _call(
                "read_job",
                "Read a job",
                {"200": answer("The job.", json_of(ref("Job")), Content_Language="ContentLanguage"), **known},
                "How far it is, and what came of it: `result`, or `problem`. Waits for no program.",
                parameters=[*one, *parameters("Language")],
            ),
            "delete": _call(
                "cancel_job",
                "Cancel a job",
                {"204": answer("It has ended."), **known},
                "Queued or running: the session is as it was before. One that has ended stays. May be repeated.",
                parameters=one,
            ),
        },
        "/v1/jobs/{id}/events": {
            "get": _call(
                "listen_to_job",
                "Listen to a job",
                {
                    "200": answer("The events.", {"text/event-stream": {"schema": {}}}),
                    "204": answer("`Last-Event-ID` is the last one."),
                    **known,
                },
                _EVENTS,
                parameters=[*one, *parameters("LastEvent")],
            ),
        },
    }
