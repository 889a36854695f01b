"""The phone's end of the adb transport: messages, streams and services, as the real adb server expects them.

A message is six little-endian words {command, arg0, arg1, length, checksum, command ^ ffffffff} and a payload. A stream
has one unanswered WRTE a direction: write() waits for OKAY, and OKAY for the other side's WRTE goes out when its
payload has been consumed. There is no half-close: CLSE ends both directions.
"""
import asyncio
import errno
import fcntl
import os
import re
import signal
import stat
import struct

import sandbox


def word(tag):
    return struct.unpack("<I", tag)[0]


CNXN, AUTH, OPEN, OKAY, WRTE, CLSE = map(word, (b"CNXN", b"AUTH", b"OPEN", b"OKAY", b"WRTE", b"CLSE"))
VERSION = 0x01000001  # from here on nobody looks at checksums
PAYLOAD_MAX, SYNC_DATA_MAX, PATH_MAX = 1 << 20, 64 * 1024, 4096
FEATURES = "shell_v2,cmd,stat_v2,ls_v2,fixed_push_mkdir,fixed_push_symlink_timestamp"
AUTH_TOKEN, AUTH_SIGNATURE = 1, 2
TIOCSCTTY, TIOCSWINSZ = 0x540E, 0x5414
SHELL_STDIN, SHELL_STDOUT, SHELL_STDERR, SHELL_EXIT, SHELL_CLOSE_STDIN, SHELL_WINDOW = range(6)


class Closed(ConnectionError):
    """The stream or the transport under it is gone."""


class Stream:
    def __init__(self, link, local, remote):
        self.link, self.local, self.remote = link, local, remote
        self.open, self.accepted, self.acknowledged = True, False, asyncio.Event()
        self.incoming, self.rest = asyncio.Queue(), b""

    async def write(self, data):
        view = memoryview(data)
        for at in range(0, len(view), self.link.payload_max):
            if not self.open:
                raise Closed
            if self.link.phone.matches("drop_on_send", view[at:at + self.link.payload_max]):
                raise Closed
            self.acknowledged.clear()
            await self.link.send(WRTE, self.local, self.remote, view[at:at + self.link.payload_max])
            await self.acknowledged.wait()
        if not self.open:
            raise Closed

    async def read(self):
        """The next payload, b"" at the end."""
        if self.rest:
            data, self.rest = self.rest, b""
            return data
        data = await self.incoming.get()
        if not data:
            self.incoming.put_nowait(b"")  # for whoever asks again
        elif self.open:
            await self.link.send(OKAY, self.local, self.remote)
        return data

    async def read_exactly(self, n):
        parts, have = [], 0
        while have < n:
            data = await self.read()
            if not data:
                raise Closed
            parts.append(data)
            have += len(data)
        data = b"".join(parts)
        self.rest = data[n:] + self.rest
        return data[:n]

    def ended(self):
        self.open = False
        self.acknowledged.set()
        self.incoming.put_nowait(b"")

    async def accept(self):
        self.accepted = True
        await self.link.send(OKAY, self.local, self.remote)

    async def close(self):
        if self.link.streams.pop(self.local, None) is not None and self.open:
            self.open = False
            # a refused OPEN has no number of ours: with one, the server would not find its stream and wait for ever
            await self.link.send(CLSE, self.local if self.accepted else 0, self.remote)


class Link:
    """One connection of an adb server."""

    def __init__(self, phone, reader, writer):
        self.phone, self.reader, self.writer = phone, reader, writer
        self.streams, self.next_id, self.payload_max = {}, 1, 4096
        self.sending, self.online = asyncio.Lock(), False

    async def send(self, command, a, b, data=b""):
        head = struct.pack("<6I", command, a, b, len(data), 0, command ^ 0xFFFFFFFF)
        async with self.sending:
            self.writer.write(head)
            self.writer.write(data)
            await self.writer.drain()

    async def connect(self):
        self.online = True
        p = sandbox.props(self.phone.profile)
        banner = "".join(f"{k}={p[k]};" for k in ("ro.product.name", "ro.product.model", "ro.product.device"))
        features = self.phone.profile.get("adb_features", FEATURES)
        await self.send(CNXN, VERSION, PAYLOAD_MAX, f"device::{banner}features={features}".encode())

    async def greet(self, command, a, b):
        if command == CNXN:
            self.payload_max = min(b, PAYLOAD_MAX)
        if not self.phone.faults.get("unauthorized"):
            await self.connect()
        elif command == CNXN or a == AUTH_SIGNATURE:
            await self.send(AUTH, AUTH_TOKEN, 0, os.urandom(20))
        # after the public key (the third kind) the phone asks its owner, and nothing is heard until it is tapped

    async def take(self, command, a, b, data):
        if command in (CNXN, AUTH):
            await self.greet(command, a, b)
        elif command == OPEN and self.online:
            stream = Stream(self, self.next_id, a)
            self.next_id += 1
            self.streams[stream.local] = stream
            asyncio.ensure_future(serve(self.phone, stream, bytes(data).rstrip(b"\0").decode(errors="replace")))
        elif b in self.streams:
            stream = self.streams[b]
            if command == OKAY:
                stream.remote = a
                stream.acknowledged.set()
            elif command == WRTE:
                stream.incoming.put_nowait(data)
            elif command == CLSE:
                del self.streams[b]
                stream.ended()
        elif command == WRTE:
            await self.send(CLSE, 0, a)

    async def run(self):
        while True:
            command, a, b, n, _, magic = struct.unpack("<6I", await self.reader.readexactly(24))
            if magic != command ^ 0xFFFFFFFF or n > PAYLOAD_MAX:
                raise Closed("a message with a broken head")
            data = await self.reader.readexactly(n)
            await self.phone.cable(data)
            await self.take(command, a, b, data)

    def drop(self):
        for stream in list(self.streams.values()):
            stream.ended()
        self.streams.clear()
        self.writer.transport.abort()


async def serve(phone, stream, name):
    """One service from OPEN to CLSE."""
    phone.count("services")
    phone.log("open", name[:200])
    kind, _, rest = name.partition(":")
    options = kind.split(",")
    try:
        if kind == "sync":
            await stream.accept()
            await Sync(phone, stream).run()
        elif options[0] in ("shell", "exec"):
            await stream.accept()
            await Shell(phone, stream, rest, options).run()
        elif kind in ("tcp", "localabstract", "localfilesystem", "dev"):
            reader, writer = await dial(kind, rest)
            await stream.accept()
            await pump(stream, reader, writer)
        elif kind == "reboot":
            await stream.accept()
            asyncio.get_running_loop().call_later(0.05, phone.reboot, 1.0)
    except (OSError, ValueError, asyncio.IncompleteReadError) as e:
        phone.log("ended", name[:80], repr(e))
    finally:
        try:
            await stream.close()
        except OSError:
            pass  # the cable is gone: nobody to tell


async def dial(kind, rest):
    if kind == "tcp":
        return await asyncio.open_connection("127.0.0.1", int(rest.split(":")[-1]))
    return await asyncio.open_unix_connection("\0" + rest if kind == "localabstract" else rest)


async def pump(stream, reader, writer):
    """A forward: whichever side ends first ends both, after what was read has been written."""

    async def outwards():
        try:
            while data := await reader.read(65536):
                await stream.write(data)
        except OSError:
            pass
        try:
            await stream.close()
        except OSError:
            pass
        stream.incoming.put_nowait(b"")

    task = asyncio.ensure_future(outwards())
    try:
        while data := await stream.read():
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()
        task.cancel()


# ---- shell -----------------------------------------------------------------------------------------------------------


class Shell:
    """shell and exec; with v2, frames {kind u8, length u32, data} and an exit frame, else bytes both ways."""

    def __init__(self, phone, stream, command, options):
        self.phone, self.stream, self.command = phone, stream, command
        self.v2 = "v2" in options
        self.pty = "pty" in options or (options[0] == "shell" and "raw" not in options and not command)
        self.writing = asyncio.Lock()

    def child(self):
        os.setsid()
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # it may be ignored here: tests run under nohup, say
        if self.pty:
            fcntl.ioctl(0, TIOCSCTTY, 0)
        sandbox.unshare(sandbox.NEWUSER)
        sandbox.map_ids(self.phone.profile.get("uid", 2000), 0, 0)

    async def start(self):
        hang = self.phone.faults.get("hang")
        command = "sleep 86400" if hang and re.search(hang, self.command) else self.command
        argv = ["/system/bin/sh", "-c", command] if command else ["/system/bin/sh"] + (["-i"] if self.pty else [])
        pipe, self.master = asyncio.subprocess.PIPE, None
        ends = {"stdin": pipe, "stdout": pipe, "stderr": pipe if self.v2 else asyncio.subprocess.STDOUT}
        if self.pty:
            self.master, slave = os.openpty()
            ends = {"stdin": slave, "stdout": slave, "stderr": slave}
        self.process = await asyncio.create_subprocess_exec(*argv, env=self.phone.environment, cwd="/",
                                                            preexec_fn=self.child, **ends)
        self.sources = [(self.process.stdout, SHELL_STDOUT), (self.process.stderr, SHELL_STDERR)]
        if self.pty:
            os.close(slave)
            out = asyncio.StreamReader()
            await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(out),
                                                               os.fdopen(os.dup(self.master), "rb", 0))
            self.sources = [(out, SHELL_STDOUT)]

    async def send(self, kind, data):
        async with self.writing:
            await self.stream.write(struct.pack("<BI", kind, len(data)) + data if self.v2 else data)

    async def outwards(self, source, kind):
        try:
            while source is not None and (data := await source.read(65536)):
                await self.send(kind, data)
        except OSError:
            pass  # EIO is the end of a pty

    async def feed(self, data):
        if self.pty:
            os.write(self.master, data)
        else:
            self.process.stdin.write(data)
            await self.process.stdin.drain()

    def close_stdin(self):
        if not self.pty:
            self.process.stdin.close()

    async def inwards(self):
        try:
            while not self.v2 and (data := await self.stream.read()):
                await self.feed(data)
            while self.v2:
                kind, n = struct.unpack("<BI", await self.stream.read_exactly(5))
                data = await self.stream.read_exactly(n)
                if kind == SHELL_STDIN:
                    await self.feed(data)
                elif kind == SHELL_CLOSE_STDIN:
                    self.close_stdin()
                elif kind == SHELL_WINDOW and self.pty:
                    rows, columns = (int(x) for x in data.split(b",")[0].split(b"x"))
                    fcntl.ioctl(self.master, TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))
        except (OSError, ValueError):
            pass
        if not self.stream.open and self.process.returncode is None:
            try:
                os.killpg(self.process.pid, signal.SIGHUP)  # as adbd does when its client is gone
            except ProcessLookupError:
                pass
        self.close_stdin()

    async def run(self):
        await self.start()
        inwards = asyncio.ensure_future(self.inwards())
        await asyncio.gather(*(self.outwards(*s) for s in self.sources))
        code = await self.process.wait()
        if self.v2 and self.stream.open:
            await self.send(SHELL_EXIT, bytes([code & 255 if code >= 0 else 128 - code]))
        inwards.cancel()
        if self.master is not None:
            os.close(self.master)


# ---- files -----------------------------------------------------------------------------------------------------------


class Sync:
    """Requests {id, length u32, path}; a failed transfer ends the session, as with adbd."""

    def __init__(self, phone, stream):
        self.phone, self.stream = phone, stream

    async def fail(self, text):
        data = text.encode()
        await self.stream.write(b"FAIL" + struct.pack("<I", len(data)) + data)
        return False

    @staticmethod
    def stat1(tag, path):
        try:
            s = os.lstat(path)
            return tag + struct.pack("<3I", s.st_mode, s.st_size & 0xFFFFFFFF, int(s.st_mtime))
        except OSError:
            return tag + bytes(12)

    @staticmethod
    def stat2(tag, path, follow):
        layout = "<4sI2Q4IQ3q"
        try:
            s = os.stat(path, follow_symlinks=follow)
        except OSError as e:
            return struct.pack(layout, tag, e.errno, *[0] * 10)
        return struct.pack(layout, tag, 0, s.st_dev, s.st_ino, s.st_mode, s.st_nlink, s.st_uid, s.st_gid, s.st_size,
                           int(s.st_atime), int(s.st_mtime), int(s.st_ctime))

    async def list(self, path, v2):
        out = []
        names = sorted(os.listdir(path)) if os.path.isdir(path) else []
        for name in [".", ".."] + names if names else []:
            raw, full = os.fsencode(name), os.path.join(path, name)
            out.append(self.stat2(b"DNT2", full, False) if v2 else self.stat1(b"DENT", full))
            out.append(struct.pack("<I", len(raw)) + raw)
        await self.stream.write(b"".join(out) + b"DONE" + bytes(72 if v2 else 16))
        return True

    def create(self, path, mode):
        refused = self.phone.faults.get("push_fail")
        if refused and re.search(refused, path):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        os.makedirs(os.path.dirname(path) or "/", exist_ok=True)
        if os.path.lexists(path) and not os.path.isdir(path):
            os.unlink(path)
        return None if stat.S_ISLNK(mode) else open(path, "wb", 0)

    async def receive(self, request):
        """SEND "path,mode": data is read to its end even when it cannot be kept, then comes OKAY or FAIL."""
        path, _, number = request.rpartition(",")
        mode, trouble, file, link_to = int(number or "0", 0) or 0o644, None, None, b""
        self.phone.count("pushes")
        try:
            file = self.create(path, mode)
        except OSError as e:
            trouble = f"couldn't create file: {e.strerror}"
        while True:
            tag, n = struct.unpack("<4sI", await self.stream.read_exactly(8))
            if tag == b"DONE":
                break
            if tag != b"DATA" or n > SYNC_DATA_MAX:
                return await self.fail("invalid data message")
            data = await self.stream.read_exactly(n)
            self.phone.count("pushed_bytes", n)
            try:
                if file is not None and trouble is None and file.write(data) != n:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError as e:
                trouble = f"write failed: {e.strerror}"
            if stat.S_ISLNK(mode):
                link_to += data
        return await self.keep(path, mode, trouble, file, link_to, n)

    async def keep(self, path, mode, trouble, file, link_to, mtime):
        if file is not None:
            file.close()
            if trouble is not None:
                os.unlink(path)
                return await self.fail(trouble)
            os.chmod(path, mode & 0o777 | (mode & 0o700) >> 3)
            os.utime(path, (mtime, mtime))
        elif trouble is not None:
            return await self.fail(trouble)
        else:
            os.symlink(link_to.rstrip(b"\0"), path)
        await self.stream.write(b"OKAY" + bytes(4))
        return True

    async def send(self, path):
        self.phone.count("pulls")
        try:
            with open(path, "rb") as file:
                while data := file.read(SYNC_DATA_MAX):
                    await self.stream.write(b"DATA" + struct.pack("<I", len(data)) + data)
        except OSError as e:
            if isinstance(e, ConnectionError):
                raise
            return await self.fail(f"open failed: {e.strerror}")
        await self.stream.write(b"DONE" + bytes(4))
        return True

    async def run(self):
        go_on = True
        while go_on:
            tag, n = struct.unpack("<4sI", await self.stream.read_exactly(8))
            if tag == b"QUIT":
                return
            if n > PATH_MAX:
                await self.fail("path too long")
                return
            path = os.fsdecode(bytes(await self.stream.read_exactly(n)))
            if tag == b"STAT":
                await self.stream.write(self.stat1(b"STAT", path))
            elif tag in (b"STA2", b"LST2"):
                await self.stream.write(self.stat2(tag, path, tag == b"STA2"))
            elif tag in (b"LIST", b"LIS2"):
                go_on = await self.list(path, tag == b"LIS2")
            elif tag == b"SEND":
                go_on = await self.receive(path)
            elif tag == b"RECV":
                go_on = await self.send(path)
            else:
                go_on = await self.fail(f"unknown command {tag!r}")
