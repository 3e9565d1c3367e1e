"""Attacks on files of the host, for reading and for writing."""

import ctypes
import os
from pathlib import Path
from typing import Any

from trying import Tries, libc, read, syscall, write


def accounts(target: dict[str, Any]) -> dict[str, Any]:
    """Reads the host's accounts and identity."""
    tries = Tries()
    for name in ("passwd", "shadow", "group", "sudoers", "machine-id", "fstab", "ssh/sshd_config", "hosts"):
        tries(name, read, f"/etc/{name}")
    return tries.told()


def repository(target: dict[str, Any]) -> dict[str, Any]:
    """Reads the repository that the server runs from, and the tools' own."""
    tries = Tries()
    for name in ("pyproject.toml", "README.md", ".git/HEAD", "tests/conftest.py", "docs/settings.md", "Makefile"):
        tries(name, read, f"{target['repo']}/{name}")
    for name in ("tools.d/harmless.py", ".git/HEAD", ".git/config", "tokens.yml"):
        tries(name, read, f"{target['home']}/{name}")
    return tries.told()


def data_folder(target: dict[str, Any]) -> dict[str, Any]:
    """Reads what the server keeps under PORTOSER_DATA: passwords, keys, the database's files."""
    tries = Tries()
    for path in target["data_files"]:
        tries(path, read, path)
    for path in (target["data"], f"{target['data']}/postgres", f"{target['data']}/scratch"):
        tries(f"list {path}", os.listdir, path)
    return tries.told()


def home_and_keys(target: dict[str, Any]) -> dict[str, Any]:
    """Reads the server's home and its ssh keys, by path and by name."""
    tries = Tries()
    for path in (target["key"], "/root/.bashrc", "/root/.profile", "~root/.bashrc", "~/.bashrc", "~/.ssh/id_ed25519"):
        tries(path, read, os.path.expanduser(path))
    return tries.told()


def private_files(target: dict[str, Any]) -> dict[str, Any]:
    """Reads files of the server's user in folders that are open to all, private ones and public ones."""
    tries = Tries()
    for path in target["private"]:
        tries(path, read, path)
        tries(f"openat {path}", _by_folder, path)
    return tries.told()


def _by_folder(path: str) -> bytes:
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    return os.read(os.open(os.path.basename(path), os.O_RDONLY, dir_fd=folder), 200)


def scratch_of_others(target: dict[str, Any]) -> dict[str, Any]:
    """Reads what another caller's call has in its scratch folder."""
    tries = Tries()
    for path in target["scratch_of_others"]:
        tries(path, read, path)
        tries(f"list {path}", os.listdir, os.path.dirname(path))
    tries("..", lambda: [name for name in os.listdir("..") if name != os.path.basename(os.getcwd())])
    tries("neighbours", lambda: [str(path) for path in Path("..").glob("*/private.txt")])
    return tries.told()


def through_proc(target: dict[str, Any]) -> dict[str, Any]:
    """Reaches the host's files through the links below /proc."""
    tries = Tries()
    for process in ("self", "thread-self", "1", *map(str, target["pids"])):
        for link in ("root", "cwd"):
            for path in (target["key"], "/etc/shadow", "/etc/passwd"):
                tries(f"{process}/{link}{path}", read, f"/proc/{process}/{link}/../../../../../../..{path}")
    tries("self/..", read, f"/proc/self/../{target['server']}/environ")
    for number in range(64):
        tries(f"fd {number}", read, f"/proc/{target['server']}/fd/{number}")
    return tries.told()


def dot_dots(target: dict[str, Any]) -> dict[str, Any]:
    """Climbs out of its scratch folder, by paths and by descriptors of folders."""
    tries = Tries()
    up = "../" * 30
    for path in (target["key"], "/etc/passwd", target["private"][0]):
        tries(f"up to {path}", read, f"{up}{path.lstrip('/')}")
        tries(f"twisted {path}", read, f"/usr/../{path}")
        tries(f"openat {path}", _beneath, path)
        tries(f"openat2 {path}", _openat2, path)
    return tries.told()


def _beneath(path: str) -> bytes:
    root = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    return os.read(os.open(path.lstrip("/"), os.O_RDONLY, dir_fd=root), 200)


def _openat2(path: str) -> bytes:
    how = (ctypes.c_uint64 * 3)(os.O_RDONLY, 0, 0)
    return os.read(syscall("openat2", -100, ctypes.c_char_p(path.encode()), ctypes.byref(how), 24), 200)


def symlinks(target: dict[str, Any]) -> dict[str, Any]:
    """Follows symbolic links of its own that point at the host's files."""
    tries = Tries()
    for number, path in enumerate((target["key"], "/etc/passwd", target["private"][0], "/proc/1/environ")):
        link = f"link{number}"
        Path(link).unlink(missing_ok=True)
        os.symlink(path, link)
        tries(path, read, link)
        os.unlink(link)
    os.symlink("/", "root")
    tries("a link to the root", read, f"root{target['key']}")
    os.unlink("root")
    return tries.told()


def hardlinks(target: dict[str, Any]) -> dict[str, Any]:
    """Gives the host's files a second name in its own folder, or its own files one outside."""
    tries = Tries()
    for number, path in enumerate((target["key"], "/etc/passwd", target["private"][0])):
        tries(path, lambda path=path, number=number: (os.link(path, f"hard{number}"), read(f"hard{number}")))
    Path("mine").write_text("attack")
    tries("out", os.link, "mine", f"{target['open_folder']}/{target['marker']}-link")
    tries("moved out", os.rename, "mine", f"{target['open_folder']}/{target['marker']}-moved")
    return tries.told()


def by_handle(target: dict[str, Any]) -> dict[str, Any]:
    """Opens files by path-only descriptors and by file handles, past the folders above them."""
    tries = Tries()
    for path in (target["key"], "/etc/shadow", "/etc/passwd"):
        tries(f"O_PATH {path}", lambda path=path: read(f"/proc/self/fd/{os.open(path, os.O_PATH)}"))
        tries(f"handle {path}", _by_handle, path)
    return tries.told()


def _by_handle(path: str) -> bytes:
    handle = (ctypes.c_uint32 * 40)(128)
    mount = ctypes.c_int()
    syscall("name_to_handle_at", -100, ctypes.c_char_p(path.encode()), ctypes.byref(handle), ctypes.byref(mount), 0)
    return os.read(syscall("open_by_handle_at", -100, ctypes.byref(handle), os.O_RDONLY), 200)


def metadata(target: dict[str, Any]) -> dict[str, Any]:
    """Asks which files there are on the host, how large they are and when they were used.

    open in root-bare, user-bare: the kernel has no means but namespaces to hide that a file is there, and its size
    """
    tries = Tries()
    for path in (target["key"], "/etc/shadow", target["private"][0], target["data"], f"{target['repo']}/README.md"):
        tries(f"stat {path}", lambda path=path: os.stat(path).st_mtime_ns)
        tries(f"access {path}", os.access, path, os.F_OK)
        tries(f"O_PATH {path}", lambda path=path: os.fstat(os.open(path, os.O_PATH)).st_ino)
    tries("statvfs", lambda: os.statvfs(target["data"]).f_bfree)
    return tries.told()


def listings(target: dict[str, Any]) -> dict[str, Any]:
    """Lists the host's folders."""
    tries = Tries()
    for path, known in target["listings"].items():
        tries(path, lambda path=path, known=known: known in os.listdir(path))
        tries(f"walk {path}", lambda path=path, known=known: known in next(os.walk(path))[1:])
    return tries.told()


def devices(target: dict[str, Any]) -> dict[str, Any]:
    """Opens devices, and makes some of its own."""
    tries = Tries()
    names = ("mem", "kmem", "port", "kmsg", "fuse", "kvm", "net/tun", "vhost-vsock", "vsock", "tty", "ptmx", "rtc0")
    for name in (*names, "vda", "sda", "nvme0n1", "loop0", "loop-control", "mapper/control", "userfaultfd", "shm"):
        tries(name, os.open, f"/dev/{name}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    for name, kind, major, minor in (("disk", 0o060000, 254, 0), ("memory", 0o020000, 1, 1), ("disk8", 0o060000, 8, 0)):
        tries(f"mknod {name}", os.mknod, name, kind | 0o600, os.makedev(major, minor))
    return tries.told()


def proc_and_sys(target: dict[str, Any]) -> dict[str, Any]:
    """Reads the host's state from /proc and /sys, and opens its switches."""
    tries = Tries()
    for name in ("kcore", "kallsyms", "kmsg", "keys", "sysvipc/shm", "timer_list", "vmallocinfo", "1/environ"):
        tries(name, read, f"/proc/{name}")
    tries("the host's sockets", lambda: target["socket"].encode() in Path("/proc/net/unix").read_bytes())
    tries("the host's mounts", lambda: b" / / " in Path("/proc/1/mountinfo").read_bytes())
    for path in ("/sys/kernel/notes", "/sys/class/net/eth0/address", "/sys/class/dmi/id/product_uuid", "/sys/fs/cgroup/cgroup.procs"):
        tries(path, read, path)
    switches = ("sysrq-trigger", "sys/kernel/core_pattern", "sys/kernel/hostname", "sys/vm/drop_caches", "self/oom_adj")
    for name in switches:
        tries(f"write {name}", os.open, f"/proc/{name}", os.O_WRONLY)
    tries("own mappings of others", lambda: [pid for pid in target["pids"] if _maps(pid)])
    return tries.told()


def _maps(pid: int) -> bool:
    try:
        return bool(Path(f"/proc/{pid}/maps").read_bytes()) and pid != os.getpid()
    except OSError:
        return False


def writes_outside(target: dict[str, Any]) -> dict[str, Any]:
    """Writes files outside of its scratch folder."""
    tries = Tries()
    for folder in target["folders"]:
        tries(folder, write, f"{folder}/{target['marker']}")
        tries(f"folder in {folder}", os.mkdir, f"{folder}/{target['marker']}.d")
        tries(f"link in {folder}", os.symlink, "/", f"{folder}/{target['marker']}.l")
        tries(f"socket in {folder}", os.mkfifo, f"{folder}/{target['marker']}.p")
        tries(f"tmpfile in {folder}", os.open, folder, os.O_TMPFILE | os.O_RDWR)
    return tries.told()


def changes_files(target: dict[str, Any]) -> dict[str, Any]:
    """Overwrites, cuts, renames, removes files of the server's user, and changes their rights, times and owner."""
    tries = Tries()
    path = target["victim"]
    tries("write", write, path)
    tries("append", os.open, path, os.O_WRONLY | os.O_APPEND)
    tries("cut", os.truncate, path, 1)
    tries("rights", os.chmod, path, 0o777)
    tries("rights of a folder", os.chmod, os.path.dirname(path), 0o777)
    tries("times", os.utime, path, (1, 1))
    tries("owner", os.chown, path, 65533, 65533)
    tries("attribute", os.setxattr, path, "user.attack", b"1")
    tries("rights by descriptor", lambda: os.chmod(f"/proc/self/fd/{os.open(path, os.O_PATH)}", 0o777))
    tries("rename", os.rename, path, f"{path}.{target['marker']}")
    tries("remove", os.unlink, path)
    return tries.told()


def code_of_the_server(target: dict[str, Any]) -> dict[str, Any]:
    """Changes the code that the server and the other workers run.

    real: no
    """
    tries = Tries()
    package = os.path.dirname(os.path.dirname(os.__file__))
    for path in (target["package"], target["site_packages"], os.path.dirname(os.__file__), package):
        tries(f"make in {path}", write, f"{path}/{target['marker']}.pth")
        tries(f"cached in {path}", write, f"{path}/__pycache__/{target['marker']}.pyc")
    tries("rights", os.chmod, f"{target['package']}/__init__.py", 0o644)
    tries("append", os.open, f"{target['package']}/__init__.py", os.O_WRONLY | os.O_APPEND)
    return tries.told()


def watches(target: dict[str, Any]) -> dict[str, Any]:
    """Watches what happens to the host's files."""
    tries = Tries()
    descriptor = libc.inotify_init1(0)
    for path in ("/etc", target["open_folder"], target["private"][0], target["repo"]):
        tries(path, lambda path=path: libc.inotify_add_watch(descriptor, path.encode(), 0xFFF) >= 0)
    tries("fanotify", syscall, "fanotify_init", 0, 0)
    return tries.told()
