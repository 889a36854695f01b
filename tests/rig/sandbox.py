"""The inside of a fake phone: namespaces, a root of its own, fabricated /sys and /proc, foreign programs through qemu.

No root is needed: a user namespace gives the rights, and everything is gone with its processes. Order matters:
enter() leaves the caller in new user, mount, net, pid, ipc and uts namespaces; its child is process 1 in there and
calls build(). pivot_root rather than chroot, because a chroot may not create the nested user namespace in which
commands run as the shell user.
"""
import ctypes
import fcntl
import os
import shutil
import socket
import struct
import sys

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
PR_SET_PDEATHSIG = 1
SIOCSIFFLAGS, IFF_UP_RUNNING = 0x8914, 0x41
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41}

# ELF header of each machine, as (e_ident class and data, e_machine), and qemu's program for it.
MACHINES = {"aarch64": (2, 0xB7, "qemu-aarch64"), "arm": (1, 0x28, "qemu-arm"), "riscv64": (2, 0xF3, "qemu-riscv64")}
# What `uname -m` says there.
UNAME = {"aarch64": "aarch64", "arm": "armv7l", "riscv64": "riscv64", "x86_64": "x86_64"}

libc = ctypes.CDLL(None, use_errno=True)


def check(result, what):
    if result != 0:
        raise OSError(ctypes.get_errno(), what + ": " + os.strerror(ctypes.get_errno()))


def unshare(flags):
    check(libc.unshare(flags), "unshare")


def die_with_parent(signal_number):
    check(libc.prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0), "prctl")


def map_ids(inner, uid, gid):
    """In a fresh user namespace: `inner` in here is uid/gid outside."""
    for name, text in (("setgroups", "deny"), ("uid_map", f"{inner} {uid} 1"), ("gid_map", f"{inner} {gid} 1")):
        with open("/proc/self/" + name, "w") as f:
            f.write(text)


def mount(source, target, kind=None, flags=0, data=None):
    text = [x.encode() if x is not None else None for x in (source, target, kind, data)]
    check(libc.mount(text[0], text[1], text[2], ctypes.c_ulong(flags), text[3]), f"mount {source or kind} on {target}")


def put(path, text, mode=0o644):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        f.write(text)
    os.chmod(path, mode)


def enter():
    """Leaves this process in the new namespaces; its next child is process 1 of the phone."""
    uid, gid = os.getuid(), os.getgid()
    unshare(NEWUSER | NEWNS | NEWNET | NEWPID | NEWIPC | NEWUTS)
    map_ids(0, uid, gid)


def loopback_up():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        fcntl.ioctl(s, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP_RUNNING))


def bind_host(root, name):
    source = "/" + name
    if os.path.islink(source):
        os.symlink(os.readlink(source), f"{root}/{name}")
    elif os.path.isdir(source):
        os.makedirs(f"{root}/{name}", exist_ok=True)
        mount(source, f"{root}/{name}", None, MS_BIND | MS_REC)


def make_dev(root):
    os.mkdir(f"{root}/dev")
    for name in ("null", "zero", "full", "random", "urandom", "tty"):
        put(f"{root}/dev/{name}", "")
        mount(f"/dev/{name}", f"{root}/dev/{name}", None, MS_BIND)
    os.mkdir(f"{root}/dev/pts")
    mount("devpts", f"{root}/dev/pts", "devpts", 0, "newinstance,ptmxmode=0666,mode=620")
    os.symlink("pts/ptmx", f"{root}/dev/ptmx")


# ---- what the phone says of itself ---------------------------------------------------------------------------------


def cpu_list(profile):
    return [(cpu, c) for c in profile["clusters"] for cpu in range(c["cpus"][0], c["cpus"][1] + 1)]


def cpuinfo(profile):
    """/proc/cpuinfo in the words of the profile's architecture."""
    blocks = []
    for cpu, cluster in cpu_list(profile):
        lines = [f"processor\t: {cpu}"]
        if profile["arch"] == "riscv64":
            lines += [f"hart\t\t: {cpu}", f"isa\t\t: {profile['isa']}", "mmu\t\t: sv39", "uarch\t\t: rig,u74"]
        elif profile["arch"] == "x86_64":
            lines += ["model name\t: Rig x86", "flags\t\t: " + profile.get("features", "")]
        else:
            lines += ["BogoMIPS\t: 38.40", f"Features\t: {profile['features']}", "CPU implementer\t: 0x41",
                      f"CPU architecture: {7 if profile['arch'] == 'arm' else 8}", "CPU variant\t: 0x0",
                      f"CPU part\t: {cluster['part']}", "CPU revision\t: 4"]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n\n"


def sysfs(profile):
    """Path below /sys -> (text, mode)."""
    cpus = cpu_list(profile)
    everyone = f"0-{cpus[-1][0]}"
    out = {f"devices/system/cpu/{x}": everyone for x in ("online", "present", "possible")}
    for cpu, c in cpus:
        related = " ".join(str(i) for i in range(c["cpus"][0], c["cpus"][1] + 1))
        policy, here = f"devices/system/cpu/cpufreq/policy{c['cpus'][0]}", f"devices/system/cpu/cpu{cpu}"
        out[f"{here}/cpu_capacity"] = c["capacity"]
        out[f"{here}/topology/thread_siblings_list"] = cpu
        out[f"{here}/topology/physical_package_id"] = 0
        for base in (policy, f"{here}/cpufreq"):
            out.update({f"{base}/related_cpus": related, f"{base}/affected_cpus": related,
                        f"{base}/cpuinfo_min_freq": c["khz"][0], f"{base}/cpuinfo_max_freq": c["khz"][-1],
                        f"{base}/scaling_min_freq": c["khz"][0], f"{base}/scaling_max_freq": c["khz"][-1],
                        f"{base}/scaling_cur_freq": c["khz"][-1], f"{base}/scaling_governor": "schedutil",
                        f"{base}/scaling_available_governors": "schedutil performance powersave",
                        f"{base}/scaling_available_frequencies": " ".join(map(str, c["khz"])) + " "})
    for i, zone in enumerate(profile.get("thermal", [])):
        out[f"class/thermal/thermal_zone{i}/type"] = zone["type"]
        out[f"class/thermal/thermal_zone{i}/temp"] = zone["milli_c"]
    for name, text in profile.get("battery", {}).items():
        out[f"class/power_supply/battery/{name}"] = text
    clock = profile.get("clock", {}).get("name", "arch_sys_counter")
    out["devices/system/clocksource/clocksource0/current_clocksource"] = clock
    out.update(profile.get("sysfs", {}))
    # What only root may write on a phone that is not rooted.
    may_pin = profile.get("frequency_writable", False)
    return {path: (f"{text}\n", 0o644 if may_pin and "/scaling_" in path else 0o444) for path, text in out.items()}


def meminfo(profile):
    kb = profile.get("memory_mb", 4096) * 1024
    return f"MemTotal:       {kb} kB\nMemFree:        {kb // 3} kB\nMemAvailable:   {kb // 2} kB\n"


def props(profile):
    base = {"ro.product.model": "Rig", "ro.product.name": "rig", "ro.product.device": "rig", "ro.product.manufacturer":
            "rig", "ro.product.cpu.abi": "arm64-v8a", "ro.hardware": "rig", "ro.board.platform": "rig",
            "ro.build.version.sdk": "34", "ro.build.version.release": "14", "ro.boot.qemu": "1"}
    return {**base, **profile.get("props", {})}


GETPROP = r"""#!/bin/sh
[ $# = 0 ] && exec sed 's/^\([^=]*\)=\(.*\)$/[\1]: [\2]/' /system/build.prop
value=$(sed -n "s/^$1=//p" /system/build.prop)
echo "${value:-$2}"
"""
DUMPSYS = r"""#!/bin/sh
b=/sys/class/power_supply/battery
case "$1" in
battery) echo "Current Battery Service state:"
    echo "  level: $(cat $b/capacity 2>/dev/null)"
    echo "  temperature: $(cat $b/temp 2>/dev/null)" ;;
thermalservice) echo "Current temperatures from HAL:"
    for z in /sys/class/thermal/thermal_zone*; do
        echo "  Temperature{mValue=$(($(cat $z/temp) / 1000)).0, mName=$(cat $z/type), mStatus=0}"
    done ;;
*) echo "Can't find service: $1" ;;
esac
"""
TOOLS = ("cat", "chmod", "cp", "cut", "date", "df", "dd", "du", "echo", "env", "false", "grep", "head", "id", "kill",
         "ln", "ls", "md5sum", "mkdir", "mv", "nohup", "printf", "ps", "pwd", "readlink", "rm", "rmdir", "sed",
         "setsid", "sha256sum", "sleep", "sort", "stat", "tail", "tee", "test", "touch", "tr", "true", "wc", "xargs")


def make_system(root, profile):
    put(f"{root}/system/build.prop", "".join(f"{k}={v}\n" for k, v in props(profile).items()))
    machine, kernel = UNAME[profile["arch"]], profile["kernel"]
    stubs = {"getprop": GETPROP, "dumpsys": DUMPSYS, "getenforce": "#!/bin/sh\necho Enforcing\n",
             "uname": f'#!/bin/sh\ncase "$1" in -m) echo {machine} ;; -r) echo {kernel} ;; '
                      f"-a) echo Linux localhost {kernel} {machine} ;; *) echo Linux ;; esac\n"}
    for name, text in {**stubs, **profile.get("commands", {})}.items():
        put(f"{root}/system/bin/{name}", text, 0o755)
    for name in TOOLS:
        found = shutil.which(name, path="/usr/bin:/bin")
        if found and name not in profile.get("commands", {}):
            os.symlink(found, f"{root}/system/bin/{name}")
    os.symlink("/bin/sh", f"{root}/system/bin/sh")
    put(f"{root}/etc/passwd", "root:x:0:0::/:/system/bin/sh\nshell:x:2000:2000::/:/system/bin/sh\n")
    put(f"{root}/etc/group", "root:x:0:\nshell:x:2000:\n")
    if os.path.exists("/etc/alternatives"):
        os.mkdir(f"{root}/etc/alternatives")
        mount("/etc/alternatives", f"{root}/etc/alternatives", None, MS_BIND)
    for path, (text, mode) in sysfs(profile).items():
        put(f"{root}/sys/{path}", text, mode)


def make_proc(root, profile):
    os.mkdir(f"{root}/proc")
    mount("proc", f"{root}/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    fixed = {"cpuinfo": cpuinfo(profile), "meminfo": meminfo(profile), "loadavg": "0.10 0.08 0.05 1/420 4242\n",
             "version": f"Linux version {profile['kernel']} (rig@rig)\n"}
    for name, text in fixed.items():
        put(f"{root}/.rig/proc/{name}", text, 0o444)
        mount(f"{root}/.rig/proc/{name}", f"{root}/proc/{name}", None, MS_BIND)


def new_boot_id():
    """A phone that restarts has another boot id."""
    put("/.rig/proc/boot_id", open("/proc/sys/kernel/random/uuid").read(), 0o444)
    mount("/.rig/proc/boot_id", "/proc/sys/kernel/random/boot_id", None, MS_BIND)


# ---- programs of another machine -----------------------------------------------------------------------------------


def qemu_options(profile, qemu):
    """The .args file of launch.c."""
    n = cpu_list(profile)[-1][0] + 1
    lines = ["q " + qemu, "q -cpu", "q " + profile["qemu_cpu"], "q -r", "q " + profile["kernel"], "e RIG_CPUS=" + str(n),
             "e LD_PRELOAD=/.rig/shim.so"]
    clock = profile.get("clock")
    if clock:
        weights = ",".join(f"{k}={v}" for k, v in clock["cycles"].items())
        lines += ["b -B", "b 0", "b -plugin", f"b /.rig/vclock.so,mhz={clock['mhz']},{weights}", "e RIG_CALM=1"]
    return "\n".join(lines) + "\n"


def register_machine(arch, folder, interpreter, flags):
    """A private binfmt_misc (kernel 6.7 or newer) that starts `interpreter` for programs of `arch`."""
    word, machine, _ = MACHINES[arch]
    os.mkdir(folder)
    mount("binfmt_misc", folder, "binfmt_misc")
    magic = b"\x7fELF" + bytes((word, 1, 1)) + bytes(9) + struct.pack("<HH", 2, machine)
    mask = b"\xff" * 7 + b"\x00" * 9 + b"\xfe\xff\xff\xff"
    code = lambda data: "".join(f"\\x{x:02x}" for x in data)
    with open(folder + "/register", "w") as f:
        f.write(f":rig:M::{code(magic)}:{code(mask)}:{interpreter}:{flags}")


def build(state_dir, profile, tools_dir, data_mb=None, data_noexec=False):
    """Process 1: makes the phone's root and moves into it. `data_mb` limits /data, else it is state_dir/data."""
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    loopback_up()
    check(libc.sethostname(b"localhost", 9), "sethostname")
    os.makedirs(f"{state_dir}/data/local/tmp", exist_ok=True)
    root = f"{state_dir}/root"
    os.makedirs(root, exist_ok=True)
    mount("tmpfs", root, "tmpfs", 0, "mode=755")
    for name in ("usr", "bin", "sbin", "lib", "lib64", "lib32"):
        bind_host(root, name)
    if not sys.base_prefix.startswith("/usr"):
        bind_host(root, sys.base_prefix.lstrip("/"))  # the modules of the Python that runs this
    make_dev(root)
    make_system(root, profile)
    for name in ("data", "sdcard", ".rig"):
        os.makedirs(f"{root}/{name}", exist_ok=True)
    if data_mb:
        mount("tmpfs", f"{root}/data", "tmpfs", MS_NOSUID | MS_NODEV, f"size={data_mb}m,mode=771")
        os.makedirs(f"{root}/data/local/tmp")
    else:
        mount(f"{state_dir}/data", f"{root}/data", None, MS_BIND)
    if data_noexec:
        mount(None, f"{root}/data", None, MS_BIND | MS_REMOUNT | MS_NOSUID | MS_NODEV | MS_NOEXEC)
    os.chmod(f"{root}/data/local/tmp", 0o771)
    mount("tmpfs", f"{root}/sdcard", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=64m,mode=777")
    make_proc(root, profile)
    foreign = profile["arch"] in MACHINES
    if foreign:
        for name in ("launch", "shim.so", "vclock.so"):
            shutil.copy(f"{tools_dir}/{name}", f"{root}/.rig/{name}")
        put(f"{root}/.rig/launch.args", qemu_options(profile, shutil.which(MACHINES[profile["arch"]][2])))
    os.chdir(root)
    check(libc.syscall(SYS_PIVOT_ROOT[os.uname().machine], b".", b"."), "pivot_root")
    check(libc.umount2(b".", 2), "umount of the host's root")
    os.chdir("/")
    new_boot_id()
    if foreign:
        register_machine(profile["arch"], "/.rig/binfmt", "/.rig/launch", "PF")
