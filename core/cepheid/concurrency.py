# SPDX-License-Identifier: Apache-2.0
"""The one place that knows whether threads are green.

Cepheid is written on the standard library's threading API. With ``concurrency = eventlet`` the
executable monkey-patches that API before anything else is imported, with ``threading`` it does
not. The few parts that need a real operating system thread either way (native calls, the signal
watcher, libvirt's event loop, the HTTP server) ask for the unpatched modules here. Names are looked
up on native threads.
"""

from __future__ import annotations

import functools
import importlib
import ipaddress
import os
import socket
import sys
import warnings
from collections.abc import Callable
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cepheid.native import NativePool

#: What ``[DEFAULT] concurrency`` is when nobody sets it.
DEFAULT = "eventlet"
CHOICES = ("eventlet", "threading")

#: What looks names and addresses up, in the socket module.
LOOKUPS = ("getaddrinfo", "gethostbyname", "gethostbyname_ex", "getnameinfo")
#: Look-ups that may go on at one time; others wait.
LOOKUPS_AT_ONCE = 16
#: Seconds for a look-up. Source: resolv.conf(5), three servers that do not answer, asked twice for
#: one name, five seconds each.
LOOKUP_SECONDS = 30


def patch() -> None:
    """Make the threads of this process green. Call it before any other import.

    Names are looked up by the C library on native threads. eventlet's own resolver knows DNS and
    /etc/hosts only, whatever nsswitch.conf says, and takes 20 MiB.
    """
    if is_green():
        return
    before = os.environ.copy()
    os.environ["EVENTLET_NO_GREENDNS"] = "yes"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that eventlet is no longer developed is no news
            import eventlet
            from eventlet.green import socket as green_socket
    finally:
        os.environ.pop("EVENTLET_NO_GREENDNS")
        os.environ.update(before)
    for name in LOOKUPS:
        setattr(green_socket, name, functools.partial(_look_up, getattr(socket, name)))
    # Of psycopg2 it would import all; who connects with it makes it green.
    eventlet.monkey_patch(psycopg=False)


def is_green() -> bool:
    """Tell whether this process runs with green threads."""
    if "eventlet" not in sys.modules:
        return False
    from eventlet import patcher

    return bool(patcher.is_monkey_patched("thread"))


def original(name: str) -> Any:
    """Return the standard module `name` as it was before :func:`patch`."""
    if is_green():
        from eventlet import patcher

        return patcher.original(name)
    module: ModuleType = importlib.import_module(name)
    return module


def green_event() -> Any:
    """Return eventlet's own event; it can be sent once."""
    from eventlet.event import Event

    return Event()


def _look_up(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Look a name or an address up while other green threads go on.

    :raises socket.gaierror: it is not known, or nobody answers in time
    """
    from cepheid import errors

    asked = args[0] if args else kwargs.get("host")
    if asked is None or _is_address(asked):
        return function(*args, **kwargs)  # no name server is asked
    try:
        return _lookup_pool().run(
            functools.partial(function, *args, **kwargs),
            deadline=LOOKUP_SECONDS,
            name=function.__name__,
        )
    except errors.CallTimeout:
        text = f"{asked}: no answer within {LOOKUP_SECONDS} seconds"
        raise socket.gaierror(socket.EAI_AGAIN, text) from None


def _is_address(host: Any) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return isinstance(host, str)  # four bytes would pass, and be a name


@functools.cache
def _lookup_pool() -> NativePool:
    """Return what looks names up in this process; a fork of it would have no thread for that."""
    from cepheid.native import NativePool

    return NativePool(LOOKUPS_AT_ONCE)


def frame_getter() -> Callable[[], FrameType | None]:
    """Return a function that tells where the calling thread is by then.

    To be called by the thread that is to be watched; the answer may be asked for from any other.
    """
    if is_green():
        import greenlet

        current = greenlet.getcurrent()
        return lambda: current.gr_frame
    import threading

    ident = threading.get_ident()
    return lambda: sys._current_frames().get(ident)


def all_stacks() -> list[tuple[str, FrameType]]:
    """Return where every thread is, green ones that wait included, with a name for each.

    Callable from any native thread; it takes no lock that another holds for long.
    """
    frames = sys._current_frames()
    native = {thread.ident: thread.name for thread in original("threading").enumerate()}
    found = [
        (f"thread {native.get(ident, 'unknown')} ({ident})", frame)
        for ident, frame in frames.items()
    ]
    if is_green():
        import gc
        import threading

        import greenlet

        green = {ident: thread.name for ident, thread in list(threading._active.items())}  # type: ignore[attr-defined]
        for item in gc.get_objects():
            # One that runs is in its thread's frame above; of one that is over there is none.
            if isinstance(item, greenlet.greenlet) and item.gr_frame is not None:
                name = green.get(id(item), "without a name")
                found.append((f"green thread {name} ({id(item)})", item.gr_frame))
    return found
