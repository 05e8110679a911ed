"""Kerberos for HTTP (SPNEGO, RFC 4559): the first token of a client, by the GSSAPI library of the system.

The libraries on PyPI need a compiler and the headers of Kerberos; libgssapi_krb5 is there wherever kinit is.
"""

import ctypes
import ctypes.util
from base64 import b64encode
from functools import cache
from typing import Any

from rangeio.errors import UnauthenticatedError, UnsupportedError

_LIBRARIES = ("libgssapi_krb5.so.2", "libgssapi.so.3")


class _Buffer(ctypes.Structure):
    _fields_ = [("length", ctypes.c_size_t), ("value", ctypes.c_void_p)]


class _Oid(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint32), ("elements", ctypes.c_void_p)]


# Object identifiers, in DER: SPNEGO 1.3.6.1.5.5.2 (RFC 4178), and host-based service names 1.2.840.113554.1.2.1.4.
_SPNEGO = b"\x2b\x06\x01\x05\x05\x02"
_HOST_BASED = b"\x2a\x86\x48\x86\xf7\x12\x01\x02\x01\x04"
_MECHANISM_STATUS = 2
_ERRORS = 0xFFFF0000


@cache
def _library() -> Any:
    for name in (*_LIBRARIES, ctypes.util.find_library("gssapi_krb5")):
        try:
            return ctypes.CDLL(name) if name else None
        except OSError:
            continue
    raise UnsupportedError(
        "kerberos=True needs the library libgssapi_krb5 (Debian: apt-get install libgssapi-krb5-2)"
    )


def _oid(der: bytes) -> tuple[_Oid, Any]:
    text = ctypes.create_string_buffer(der, len(der))
    return _Oid(len(der), ctypes.cast(text, ctypes.c_void_p)), text


def negotiate(host: str) -> str:
    """The value of Authorization with which the user of the ticket cache logs in at HTTP/host. May ask the KDC.

    UnauthenticatedError if there is no ticket, or none for the server; the message is Kerberos's.
    """
    gss = _library()
    minor, name = ctypes.c_uint32(), ctypes.c_void_p()
    context, token = ctypes.c_void_p(), _Buffer()
    service = f"HTTP@{host}".encode("idna" if not host.isascii() else "ascii")
    text = ctypes.create_string_buffer(service)
    (host_based, _kept), (spnego, _kept_too) = _oid(_HOST_BASED), _oid(_SPNEGO)
    wanted = _Buffer(len(service), ctypes.cast(text, ctypes.c_void_p))
    try:
        major = gss.gss_import_name(
            ctypes.byref(minor), ctypes.byref(wanted), ctypes.byref(host_based), ctypes.byref(name)
        )
        if not major & _ERRORS:
            major = gss.gss_init_sec_context(
                ctypes.byref(minor), None, ctypes.byref(context), name, ctypes.byref(spnego), 0, 0, None,
                None, None, ctypes.byref(token), None, None,
            )  # fmt: skip
        if major & _ERRORS:
            raise UnauthenticatedError(
                f"Kerberos: {_explained(gss, minor.value, spnego)}; see kinit and klist"
            )
        return "Negotiate " + b64encode(ctypes.string_at(token.value or 0, token.length)).decode()
    finally:
        gss.gss_release_buffer(ctypes.byref(minor), ctypes.byref(token))
        gss.gss_release_name(ctypes.byref(minor), ctypes.byref(name))
        gss.gss_delete_sec_context(ctypes.byref(minor), ctypes.byref(context), None)


def _explained(gss: Any, status: int, mechanism: _Oid) -> str:
    minor, more, text = ctypes.c_uint32(), ctypes.c_uint32(), _Buffer()
    gss.gss_display_status(
        ctypes.byref(minor), ctypes.c_uint32(status), _MECHANISM_STATUS, ctypes.byref(mechanism),
        ctypes.byref(more), ctypes.byref(text),
    )  # fmt: skip
    said = (
        ctypes.string_at(text.value, text.length).decode(errors="replace").rstrip("\0") if text.value else ""
    )
    gss.gss_release_buffer(ctypes.byref(minor), ctypes.byref(text))
    return said or f"error {status}"
