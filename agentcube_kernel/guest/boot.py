# Runs by `python3 -c` in the sandbox, on whatever python3 is there: it must at least parse on 3.4 to say what is wrong.
# Arguments: one JSON object. Prints one JSON object. Starts the supervisor unless it runs, says hello to it.
import base64
import fcntl
import io
import json
import os
import re
import select
import subprocess
import sys
import time
import zipfile

FOLDER = ".agentcube-kernel"


def finish(**report):
    report["pyversion"] = list(sys.version_info[:3])
    sys.stdout.write(json.dumps(report) + "\n.\n")
    sys.stdout.flush()
    os._exit(0)


def have_ipython(wanted):
    """Whether a new enough IPython can be imported here; found out without importing it, which takes a while."""
    try:
        from importlib.util import find_spec

        found = find_spec("IPython")
        if found is None or find_spec("comm") is None:
            return False
        with open(os.path.join(os.path.dirname(found.origin), "core", "release.py")) as file:
            numbers = dict(re.findall(r"^_version_(major|minor) *= *([0-9]+)", file.read(), re.MULTILINE))
        return [int(numbers["major"]), int(numbers["minor"])] >= wanted
    except Exception:
        return False


def unpack(path, data):
    """Unpack to a name of our own first, so that a folder under its final name is always whole."""
    if os.path.isdir(path):
        return
    scratch = "%s.%d" % (path, os.getpid())
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        archive.extractall(scratch)
    try:
        os.rename(scratch, path)
    except OSError:
        if not os.path.isdir(path):
            raise


def running(guest):
    """The supervisor's facts when it is alive and really ours: it holds the request pipe open."""
    try:
        with open(os.path.join(guest, "guest.json")) as file:
            facts = json.load(file)
        request = os.path.join(guest, "request")
        proc = "/proc/%d/fd/%d" % (facts["pid"], facts["fd"])
        if os.path.isdir("/proc/self/fd"):
            return facts if os.path.samefile(proc, request) else None
        os.kill(facts["pid"], 0)
        return facts
    except (OSError, ValueError, KeyError):
        return None


def start(options, base, guest, library, archive):
    for name in os.listdir(guest):
        os.unlink(os.path.join(guest, name))
    ready, ready_end = os.pipe()
    os.set_inheritable(ready_end, True)
    paths = [library] + ([archive] if archive else [])
    # Found first while the guest imports; then the library goes and IPython's archive moves behind the sandbox's own.
    entry = (
        "import sys; paths = %r; sys.path[:0] = paths[:1]; sys.path += paths[1:]; "
        "from _agentcube_guest.guest.worker import main; sys.path.remove(paths[0]); "
        "a = [int(v) for v in sys.argv[1:]]; sys.argv[:] = ['']; main(*a)"
    ) % (paths,)
    env = dict(os.environ)
    env.update(options.get("env") or {})
    settings = {
        "folder": guest,
        "workspace": os.getcwd(),
        "command": [sys.executable, "-c", entry],
        "env": env,
        "version": options["version"],
        "ready_fd": ready_end,
    }
    code = (
        "import sys; sys.path.insert(0, %r); from _agentcube_guest.guest.supervisor import main; main()"
        % library
    )
    with open(os.path.join(guest, "log"), "wb") as log:
        subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", code, json.dumps(settings)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            close_fds=True,
            pass_fds=(ready_end,),
            start_new_session=True,
        )
    os.close(ready_end)
    answer = os.read(ready, 16)
    os.close(ready)
    if not answer:
        with open(os.path.join(guest, "log"), "rb") as log:
            finish(error="supervisor", detail=log.read()[-4000:].decode("utf-8", "replace"))


def hello(options, guest):
    name = "s%d%d" % (os.getpid(), time.time() * 1000 % 1000000)
    slot = os.path.join(guest, name)
    os.mkfifo(slot, 0o600)
    fd = os.open(slot, os.O_RDONLY | os.O_NONBLOCK)
    request = {"v": options["version"], "op": "hello", "c": options["client"]}
    if options.get("generation"):
        request["g"] = options["generation"]
        request["ack"] = options.get("ack", 0)
    with open(os.path.join(guest, "request"), "w") as pipe:
        pipe.write("%s %s\n" % (name, json.dumps(request)))
    data = b""
    deadline = time.time() + 20
    while not data.endswith(b" .\n") and select.select([fd], [], [], max(0, deadline - time.time()))[0]:
        piece = os.read(fd, 65536)
        if not piece:
            break
        data += piece
    return data.decode("ascii").split("\n", 1)[1] if data.startswith(b"+") else data.decode("ascii")


def main():
    options = json.loads(sys.argv[1])
    if list(sys.version_info[:2]) < options["oldest"]:
        finish(error="too_old")
    base = os.path.join(os.getcwd(), FOLDER)
    guest = os.path.join(base, "guest-%d" % options["version"])
    library = os.path.join(base, "lib-" + options["library_hash"])
    archive = ""
    try:
        os.makedirs(base, 0o700, exist_ok=True)
        os.chmod(base, 0o700)
        os.makedirs(guest, 0o700, exist_ok=True)
        with open(os.path.join(base, "lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            facts = running(guest)
            started = False
            if facts is None:
                if options.get("must_run"):
                    finish(error="gone")
                if not have_ipython(options["ipython"]):
                    archive = os.path.join(base, "ipython-" + options["archive_hash"])
                    parts = [archive + ".%d" % n for n in range(options["archive_parts"])]
                    if not os.path.isdir(archive):
                        if list(sys.version_info[:2]) < options["archive_oldest"]:
                            finish(error="too_old_for_ipython")
                        if not all(os.path.exists(part) for part in parts):
                            finish(error="need_ipython")
                        data = b""
                        for part in parts:
                            with open(part, "rb") as file:
                                data += file.read()
                        unpack(archive, data)
                    for part in parts:
                        if os.path.exists(part):
                            os.unlink(part)
                unpack(library, base64.b64decode(sys.argv[2]))
                start(options, base, guest, library, archive)
                started = True
                facts = running(guest)
                if facts is None:
                    finish(error="supervisor", detail="it ended right after its start")
            if facts["version"] != options["version"]:
                finish(error="version")
        finish(started=started, pid=facts["pid"], fd=facts["fd"], answer=hello(options, guest))
    except OSError as exc:
        finish(error="os", errno=exc.errno or 0, detail=str(exc))


main()
