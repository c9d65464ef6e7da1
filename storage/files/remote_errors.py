"""Failed requests to object storage, described in one line that names the cure."""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator

from obstore.exceptions import AlreadyExistsError, BaseError

from storage.errors import UnreachableError

_NO_BUCKET = "<Code>NoSuchBucket<"
CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}


@contextlib.contextmanager
def asking(path: object) -> Iterator[None]:
    """Wrap a request about `path`: turn its errors into FileNotFoundError, FileExistsError or `UnreachableError`."""
    try:
        yield
    except AlreadyExistsError as error:
        raise FileExistsError(errno.EEXIST, "already there", str(path)) from error
    except (FileNotFoundError, BaseError) as error:
        if isinstance(error, FileNotFoundError) and _NO_BUCKET not in str(error):
            raise FileNotFoundError(errno.ENOENT, "there is no such object", str(path)) from error
        raise unreachable(path, error) from error


def unreachable(path: object, error: BaseException) -> UnreachableError:
    """Return the error for storage that cannot be reached or refuses, with the cure."""
    return UnreachableError(f"cannot use {path}: {reason(error)}; {_cure(error, str(path))}")


def reason(error: BaseException) -> str:
    """Describe an error in one line, in the server's own words if the server sent any."""
    text = str(error)
    answer = re.search(r"<Code>(.*?)</Code>(?:.*?<Message>(.*?)</Message>)?", text, re.DOTALL)
    if answer is not None:
        return ": ".join(part for part in answer.groups() if part).rstrip(".")
    line = " ".join(text.partition("\n")[0].split())
    request_error = re.search(r"(https?://[^/?\s]+).* - (.*)", line)
    return (": ".join(request_error.groups()) if request_error is not None else line)[:300]


def _cure(error: BaseException, address: str) -> str:
    text = str(error)
    if _NO_BUCKET in text:
        return "create the bucket, or name another"
    # 169.254.169.254 gives credentials to machines in a cloud; it is asked last, after the environment.
    if re.search(r"status code: 40[13]\b|169\.254\.169\.254", text):
        return f"check the credentials in the environment, such as {CREDENTIALS[address[:2]]}"
    return "check the network and the address of the server, such as AWS_ENDPOINT_URL, or try again later"
