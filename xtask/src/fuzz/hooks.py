"""Rules that schemathesis cannot derive from the OpenAPI document."""

import functools
import os
import unicodedata

import requests
import schemathesis
from hypothesis import strategies as st
from schemathesis.core.parameters import ParameterLocation

USER_ID_CHARS_MIN = 3
USER_ID_BYTES_MAX = 128


def is_user_id(text):
    """Returns true when both API families accept the user id. JSON Schema cannot limit bytes."""
    text = unicodedata.normalize("NFC", text.strip())
    return USER_ID_CHARS_MIN <= len(text) and len(text.encode()) <= USER_ID_BYTES_MAX


no_control_characters = st.characters(exclude_categories=["Cc", "Cs"])
user_ids = st.text(no_control_characters, min_size=USER_ID_CHARS_MIN, max_size=USER_ID_BYTES_MAX)
schemathesis.openapi.format("user-id", user_ids.filter(is_user_id))


@schemathesis.hook
def before_call(context, case, kwargs):
    """Replaces generated values by real ones: CSRF tokens that a node has issued, and sales that a ledger knows."""
    if case.operation.path.startswith("/sales/{sale}") and not is_wrong(case, [ParameterLocation.PATH]):
        case.path_parameters["sale"] = "flash"
        if "after" in (case.query or {}) and not is_wrong(case, [ParameterLocation.QUERY]):
            case.query["creation"] = creation(case.operation.schema.get_base_url())
    locations = (ParameterLocation.HEADER, ParameterLocation.COOKIE)
    has_token = "X-CSRF-Token" in case.headers or "csrfToken" in case.cookies
    if is_wrong(case, locations) or not has_token:
        return
    token = csrf_token(case.operation.schema.get_base_url())
    case.headers["X-CSRF-Token"] = token
    case.cookies["csrfToken"] = token


def is_wrong(case, locations):
    """Returns true when the case violates the document on purpose in one of these locations."""
    return case.meta is not None and any(map(case.meta.is_negative_at, locations))


@functools.cache
def creation(base_url):
    """The creation of the latest sale, without which a ledger accepts no position."""
    headers = {"Authorization": f"Bearer {os.environ['ORDERS_API_TOKEN']}"}
    return requests.get(f"{base_url.rstrip('/')}/sales", headers=headers, timeout=10).json()["sales"][0]["creation"]


@functools.cache
def csrf_token(base_url):
    return requests.get(f"{base_url.rstrip('/')}/api/csrf", timeout=10).json()["csrfToken"]
