"""Every case comes from an address of its own, so that the thousands of wrong keys do not slow each other down."""
import itertools

import schemathesis

NUMBERS = itertools.count(1)


@schemathesis.hook
def before_call(ctx, case, kwargs):
    number = next(NUMBERS)
    case.headers = case.headers or {}
    case.headers["X-Forwarded-For"] = ".".join(str(part) for part in (20, number >> 16 & 255, number >> 8 & 255, number & 255))
