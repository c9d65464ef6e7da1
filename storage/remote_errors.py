"""What went wrong with a request, as one line that names the cure."""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator

from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError

from storage.errors import UnreachableError

_NO_BUCKET = "<Code>NoSuchBucket<"


@contextlib.contextmanager
def asking(path: object) -> Iterator[None]:
    """Around a request about `path`: its errors become FileNotFoundError, FileExistsError or `UnreachableError`."""
    try:
        yield
    except AlreadyExistsError as error:
        raise FileExistsError(errno.EEXIST, "already there", str(path)) from error
    except (FileNotFoundError, BaseError) as error:
        if isinstance(error, FileNotFoundError) and _NO_BUCKET not in str(error):
            raise FileNotFoundError(errno.ENOENT, "there is no such object", str(path)) from error
        raise UnreachableError(f"cannot use {path}: {reason(error)}; {_cure(error)}") from error


def reason(error: Exception) -> str:
    """What is wrong, in one line out of many: the server's own words where it said something."""
    text = str(error)
    told = re.search(r"<Code>(.*?)</Code>(?:.*?<Message>(.*?)</Message>)?", text, re.DOTALL)
    if told is not None:
        return ": ".join(part for part in told.groups() if part).rstrip(".")
    return " ".join(text.partition("\n")[0].split())[:300]


def _cure(error: Exception) -> str:
    text = str(error)
    if _NO_BUCKET in text:
        return "make the bucket, or name another"
    # The second is where a machine of Amazon's would have told credentials, which is asked last.
    if isinstance(error, PermissionDeniedError | UnauthenticatedError) or "169.254.169.254" in text:
        return "check the credentials in the environment, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    return "check the network and the address of the server (AWS_ENDPOINT_URL), or try again later"
