from __future__ import annotations

import errno
import socket
import threading

import pytest

from extractors.faces.offline import OfflineThread


@pytest.fixture
def thread():
    thread = OfflineThread()
    yield thread
    thread.close()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_no_socket_to_the_network_can_be_opened_there(thread, family, kind):
    with pytest.raises(OSError, match="unreachable") as caught:
        thread.call(socket.socket, family, kind)
    assert caught.value.errno == errno.ENETUNREACH


def test_threads_started_from_there_have_no_network_either(thread):
    found = []

    def try_it():
        try:
            socket.socket().close()
        except OSError as error:
            found.append(error.errno)

    def start_another():
        other = threading.Thread(target=try_it)
        other.start()
        other.join()

    thread.call(start_another)
    assert found == [errno.ENETUNREACH]


def test_everybody_else_keeps_the_network_and_local_sockets_work_there(thread):
    ends = thread.call(socket.socketpair)
    for end in ends:
        end.close()
    socket.socket().close()


def test_what_a_function_returns_and_raises_comes_through(thread):
    assert thread.call(divmod, 7, 3) == (2, 1)
    with pytest.raises(ZeroDivisionError):
        thread.call(divmod, 7, 0)


def test_a_kernel_that_refuses_is_reported_as_it_answered(monkeypatch):
    """Without its instruction "return", the filter is one that the kernel refuses."""
    monkeypatch.setattr("extractors.faces.offline._RETURN", 0xFFFF)
    with pytest.raises(OSError, match="cannot cut MediaPipe off the network: Invalid argument") as caught:
        OfflineThread()
    assert caught.value.errno == errno.EINVAL
    assert not any(thread.name.startswith("offline") for thread in threading.enumerate())
