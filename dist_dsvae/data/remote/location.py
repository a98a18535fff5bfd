"""Sources: the files of a split from afar, as chunks of bytes. One class per kind of location.

    http:// https://                 the standard library
    s3:// gs:// gcs:// az:// abfs:// hf://    fsspec and its package for the scheme, if installed
    pipe:COMMAND                     a shell command that writes {file} to its standard output

A source makes one attempt and trusts nothing; ``fetch`` tries again and checks what arrived.
"""

from __future__ import annotations

import http.client
import os
import re
import select
import shlex
import signal
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Generator
from dataclasses import dataclass
from http.client import HTTPMessage
from typing import IO, BinaryIO, Protocol
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit, urlunsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from dist_dsvae.core.errors import DataError

FSSPEC_PACKAGES = {
    "s3": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "hf": "huggingface_hub",
}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")
_PIPE = "pipe:"
_FILE = "{file}"
_CHUNK_BYTES = 2**20
_TRY_LATER = (408, 425, 429)  # the answers 4xx that do not say that the request is wrong


class AttemptError(Exception):
    """One attempt at a file failed.

    what, remedy: for the person at the terminal. lasting: trying often will hardly help.
    """

    def __init__(self, what: str, remedy: str, *, lasting: bool = False) -> None:
        super().__init__(what)
        self.what, self.remedy, self.lasting = what, remedy, lasting


GO_ON = "See whether it can be reached, then start the same command again: a run goes on from its checkpoint."
_NOT_THERE = "Correct the location, or put the file there; a split's files lie beside its manifest.json."


class Location(Protocol):
    """A place that has a split's files under their names. A value: it can be sent to other processes."""

    def name(self, file: str) -> str:
        """The file's address for messages, without what may be secret; "" names the split itself."""

    def chunks(self, file: str, timeout_seconds: float) -> Generator[bytes, None, None]:
        """The file's content, read once. Raises AttemptError."""


def is_remote(location: str) -> bool:
    """Whether a location is anything but the path of a directory."""
    return location.startswith(_PIPE) or _SCHEME.match(location) is not None


def source_of(location: str, *, allow_pipe: bool, allow_redirects: bool = False) -> Location:
    """The source at a location that ``is_remote``.

    Raises DataError if its kind is unknown, not installed, or not allowed.
    """
    if location.startswith(_PIPE):
        return _pipe(location, allow_pipe)
    match = _SCHEME.match(location)
    scheme = match.group(1).lower() if match else ""
    if scheme in ("http", "https"):
        return _http(location, allow_redirects)
    if scheme in FSSPEC_PACKAGES:
        return _fsspec(location, scheme)
    known = ", ".join(f"{name}://" for name in ("http", "https", *FSSPEC_PACKAGES))
    raise DataError(
        f"{location} is not a place that shards can be read from: its scheme is {scheme}. Allowed are "
        f"{known}, pipe: (if data.allow_pipe is true), and the plain path of a directory."
    )


# http


@dataclass(frozen=True, slots=True)
class HttpSource:
    """A directory of a web server. location: its URL; a query (a signature, say) goes to every file.

    allow_redirects: follow the server to other hosts and schemes, too.
    """

    location: str
    allow_redirects: bool = False

    def name(self, file: str) -> str:
        return urlunsplit(urlsplit(self._url(file))._replace(query=""))

    def _url(self, file: str) -> str:
        parts = urlsplit(self.location)
        path = quote(parts.path.rstrip("/"), safe="/%:@!$&'()*+,;=~")
        return urlunsplit(parts._replace(path=f"{path}/{quote(file)}" if file else path, fragment=""))

    def chunks(self, file: str, timeout_seconds: float) -> Generator[bytes, None, None]:
        headers = {"User-Agent": "dist_dsvae", "Accept-Encoding": "identity"}
        received = 0
        try:
            opener = build_opener(*([] if self.allow_redirects else [_SameHost()]))
            with opener.open(Request(self._url(file), headers=headers), timeout=timeout_seconds) as response:
                promised = response.headers.get("Content-Length")
                # read1 returns what has arrived; read would wait for a whole chunk, however slow
                while chunk := response.read1(_CHUNK_BYTES):
                    received += len(chunk)
                    yield chunk
        except HTTPError as error:
            error.close()
            raise _answered(error.code, error.reason) from error
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            raise _unreachable(error, timeout_seconds) from error
        if promised is not None and promised.isdigit() and received < int(promised):
            raise AttemptError(f"it broke off after {received:,} of {int(promised):,} bytes", GO_ON)


class _SameHost(HTTPRedirectHandler):
    """Follows a redirect to another path of the same host alone, in the same scheme or encrypted."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        encrypted = (old.scheme, new.scheme) == ("http", "https") and {old.port, new.port} <= {None, 80, 443}
        same = (old.scheme, old.netloc) == (new.scheme, new.netloc)
        if not same and not (encrypted and old.hostname == new.hostname):
            raise AttemptError(
                f"the server sends it on to {new.scheme}://{new.hostname}, another place than was named",
                "Give that location if it is right, or set data.allow_redirects to true.",
                lasting=True,
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _http(location: str, allow_redirects: bool) -> HttpSource:
    try:
        parts = urlsplit(location)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise DataError(f"{location} is not a URL ({error}). Correct it.") from None
    if not host:
        raise DataError(f"{location} names no host. A URL looks like http://host/path/train.")
    if parts.username is not None:
        raise DataError(
            f"The URL of the shards on {host} holds a user name, which the run's config.json would record. "
            "Give it without, and have the server or a proxy let this machine in."
        )
    return HttpSource(location, allow_redirects)


def _answered(status: int, reason: str) -> AttemptError:
    lasting = 300 <= status < 500 and status not in _TRY_LATER
    remedy = _NOT_THERE if lasting else GO_ON
    if status in (401, 403):
        remedy = "Give this machine access to it, or correct the location."
    return AttemptError(f"the server answered {status} {reason}".rstrip(), remedy, lasting=lasting)


def _unreachable(error: Exception, timeout_seconds: float) -> AttemptError:
    reason = error.reason if isinstance(error, URLError) else error
    if isinstance(reason, TimeoutError):
        return AttemptError(f"nothing arrived for {timeout_seconds:g} s", GO_ON)
    if isinstance(reason, socket.gaierror):
        unknown = reason.errno == socket.EAI_NONAME
        return AttemptError(f"its host was not found ({reason.strerror})", GO_ON, lasting=unknown)
    if isinstance(reason, ssl.SSLCertVerificationError):
        what = f"the server's certificate is not valid ({reason.verify_message})"
        return AttemptError(what, "Correct the location or the certificate.", lasting=True)
    if isinstance(reason, http.client.InvalidURL | UnicodeError):
        return AttemptError(f"it is not a URL ({reason})", "Correct the location.", lasting=True)
    spoken = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
    return AttemptError(f"the connection failed ({spoken})", GO_ON)


# fsspec


@dataclass(frozen=True, slots=True)
class FsspecSource:
    """A folder of an object store. The package for its scheme has its own time limits and credentials."""

    location: str

    def name(self, file: str) -> str:
        return "/".join([self.location.rstrip("/"), *([file] if file else [])])

    def chunks(self, file: str, timeout_seconds: float) -> Generator[bytes, None, None]:
        import fsspec  # here, for most runs do without it

        try:
            # the file system is looked up anew each time: fsspec keeps one per process, also after a fork
            system, path = fsspec.core.url_to_fs(self.name(file))
            with system.open(path, "rb") as stream:
                while chunk := stream.read(_CHUNK_BYTES):
                    yield chunk
        except FileNotFoundError as error:
            raise AttemptError("there is no such file", _NOT_THERE, lasting=True) from error
        except PermissionError as error:
            what = f"access was denied ({error})"
            raise AttemptError(
                what, "Check the credentials, or correct the location.", lasting=True
            ) from error
        except Exception as error:  # every package has its own exceptions, with nothing in common
            raise AttemptError(f"{type(error).__name__}: {error}", GO_ON) from error


def _fsspec(location: str, scheme: str) -> FsspecSource:
    package = FSSPEC_PACKAGES[scheme]
    try:
        import fsspec

        fsspec.get_filesystem_class(scheme)
    except (ImportError, ValueError) as error:
        raise DataError(
            f"{location} needs packages that are not installed ({error}). Run `pip install fsspec "
            f"{package}`, or copy the shards to a directory."
        ) from None
    return FsspecSource(location)


# pipe


@dataclass(frozen=True, slots=True)
class PipeSource:
    """A shell command per file; ``{file}`` in it stands for the file's name, quoted for the shell."""

    command: str

    def name(self, file: str) -> str:
        return _PIPE + (self._command(file) if file else self.command)

    def _command(self, file: str) -> str:
        return self.command.replace(_FILE, shlex.quote(file))

    def chunks(self, file: str, timeout_seconds: float) -> Generator[bytes, None, None]:
        with (
            tempfile.TemporaryFile() as messages,
            subprocess.Popen(
                self._command(file),
                shell=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=messages,
                start_new_session=True,  # so that the shell's own children can be ended with it
            ) as process,
        ):
            try:
                assert process.stdout is not None
                descriptor = process.stdout.fileno()
                arrived = select.poll()
                arrived.register(descriptor, select.POLLIN)
                while arrived.poll(timeout_seconds * 1000):
                    chunk = os.read(descriptor, _CHUNK_BYTES)
                    if not chunk:
                        break
                    yield chunk
                else:
                    raise AttemptError(f"the command wrote nothing for {timeout_seconds:g} s", GO_ON)
                status = process.wait(timeout_seconds)
            except subprocess.TimeoutExpired:
                raise AttemptError("the command closed its output but did not end", GO_ON) from None
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
            if status != 0:
                what = f"the command ended with status {status}{_last_line(messages)}"
                raise AttemptError(what, "Try the command by hand.")


def _last_line(stream: BinaryIO) -> str:
    stream.seek(max(0, stream.seek(0, os.SEEK_END) - 500))
    lines = stream.read().decode("utf-8", "replace").split("\n")
    said = [line.strip() for line in lines if line.strip()]
    return f' ("{said[-1]}")' if said else ""


def _pipe(location: str, allow_pipe: bool) -> PipeSource:
    command = location.removeprefix(_PIPE)
    if not allow_pipe:
        raise DataError(
            f"{location} would run a shell command, which is refused unless data.allow_pipe is true. Set it "
            "only for commands that you trust, or give a URL or a directory."
        )
    if _FILE not in command:
        raise DataError(
            f"{location} does not say where the name of the file goes. Write {_FILE} there, for example "
            f"pipe:ssh host cat /shards/train/{_FILE}."
        )
    return PipeSource(command)
