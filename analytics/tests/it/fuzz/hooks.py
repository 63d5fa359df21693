"""What schemathesis is told about the Query API beyond its description: persons who exist, statements that an attacker would
try, and what no answer may hold. The test (fuzz.rs) names them in the environment."""

import os

import schemathesis
from hypothesis import strategies as st

PERSONS = os.environ["FUZZ_PERSONS"].split(",")
FORBIDDEN = [word for word in os.environ["FUZZ_FORBIDDEN"].split(",") if word]
TYPES = ["heartrate", "heart-rate", "blood_pressure", "steps", "spo2", "sleep"]
with open(os.environ["FUZZ_STATEMENTS"], encoding="utf-8") as file:
    STATEMENTS = [line.rstrip("\n") for line in file if line.strip()]


# Only what is valid is exchanged for something else that is valid: a request that must be refused stays one.


@schemathesis.hook
def flatmap_path_parameters(context, path_parameters):
    drawn = {name: st.just(value) for name, value in (path_parameters or {}).items()}
    user = (path_parameters or {}).get("user_id")
    if isinstance(user, str) and len(user) == 36 and user.count("-") == 4:
        drawn["user_id"] = st.sampled_from([*PERSONS, user])
    if isinstance((path_parameters or {}).get("event_type"), str):
        drawn["event_type"] = st.sampled_from([*TYPES, path_parameters["event_type"]])
    return st.fixed_dictionaries(drawn)


@schemathesis.hook
def flatmap_body(context, body):
    if not isinstance(body, dict) or not isinstance(body.get("query"), str) or not body["query"]:
        return st.just(body)
    return st.sampled_from([*STATEMENTS, body["query"]]).map(lambda statement: {**body, "query": statement})


@schemathesis.check
def no_value_of_somebody_else(ctx, response, case):
    """Neither in the body nor in a header."""
    text = response.content.decode("utf-8", "replace") + repr(dict(response.headers))
    found = [word for word in FORBIDDEN if word in text]
    assert not found, f"an answer holds {found}"
