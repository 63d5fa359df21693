"""What schemathesis is told about the Query API beyond its description: persons who exist, statements that an attacker would
try, and what no answer may hold. The test (fuzz.rs) names them in the environment."""

import os
import zlib

import schemathesis

PERSONS = os.environ["FUZZ_PERSONS"].split(",")
FORBIDDEN = [word for word in os.environ["FUZZ_FORBIDDEN"].split(",") if word]
TYPES = ["heart-rate", "blood_pressure", "steps", "spo2", "sleep"]
with open(os.environ["FUZZ_STATEMENTS"], encoding="utf-8") as file:
    STATEMENTS = [line.rstrip("\n") for line in file if line.strip()]


def draw(choices, value):
    """One of them for two values of three, always the same for the same value; else None."""
    number = zlib.crc32(repr(value).encode())
    return None if number % 3 == 0 else choices[number // 3 % len(choices)]


# Only what is valid is exchanged for something else that is valid: a request that must be refused stays one.


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    changed = dict(path_parameters or {})
    user = changed.get("user_id")
    if isinstance(user, str) and len(user) == 36 and user.count("-") == 4:
        changed["user_id"] = draw(PERSONS, user) or user
    kind = changed.get("event_type")
    if isinstance(kind, str):
        changed["event_type"] = draw(TYPES, kind) or kind
    return changed


@schemathesis.hook
def map_body(context, body):
    if not isinstance(body, dict) or not isinstance(body.get("query"), str) or not body["query"]:
        return body
    statement = draw(STATEMENTS, body["query"])
    return {**body, "query": statement} if statement else body


@schemathesis.check
def no_value_of_somebody_else(ctx, response, case):
    """Neither in the body nor in a header."""
    text = response.content.decode("utf-8", "replace") + repr(dict(response.headers))
    found = [word for word in FORBIDDEN if word in text]
    assert not found, f"an answer holds {found}"
