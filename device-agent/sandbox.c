/* sandbox.c - what a timed program may not do. Entered by the forked child before exec, identically for every run and
 * before anything is timed.
 *
 * Mandatory: own process group, death with the agent, resource limits, no_new_privs. Opportunistic, and reported when
 * active: a seccomp deny list (no network, no tracing, no signals to others, no namespaces, no kernel loading, by clone
 * neither) and
 * Landlock (reads only what a program needs to load, writes only its own folder, no TCP). Constants of the kernel
 * interface are written out here: static libcs come without kernel headers, and these numbers never change. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "device-agent/agent_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- seccomp: classic BPF over {nr, arch, ip, args} (seccomp(2), linux/filter.h) -------------------------------- */

typedef struct bpf_op {
    uint16_t code;
    uint8_t if_true, if_false; /* instructions to skip */
    uint32_t k;
} bpf_op;

typedef struct bpf_program {
    uint16_t len;
    const bpf_op *ops;
} bpf_program;

enum {
    BPF_LOAD = 0x20,  /* BPF_LD | BPF_W | BPF_ABS */
    BPF_EQUAL = 0x15, /* BPF_JMP | BPF_JEQ | BPF_K */
    BPF_AT_LEAST = 0x35,
    BPF_ANY_BIT = 0x45, /* BPF_JMP | BPF_JSET | BPF_K */
    BPF_RETURN = 0x06,
    AT_NUMBER = 0,
    AT_ARCH = 4,
    AT_ARG0 = 16, /* low word first: little-endian machines only, see seccomp_arch */
    OPS_MAX = 176,
    MODE_FILTER = 2
};
#define ACTION_ALLOW 0x7fff0000u
#define ACTION_KILL 0x80000000u
#define ACTION_EPERM (0x00050000u | (uint32_t)EPERM)
#define ACTION_ENOSYS (0x00050000u | (uint32_t)ENOSYS)
#define CLONE_NAMESPACES 0x7e020000u /* every CLONE_NEW* that clone takes */
#define CALL_CLONE3 435u /* its flags are in memory: refused, the C library takes clone */

/* AUDIT_ARCH_* of this build; 0 = unknown: no filter. */
#if defined(__x86_64__) && !defined(__ILP32__)
#define SECCOMP_ARCH 0xc000003eu
#elif defined(__aarch64__) && defined(__AARCH64EL__)
#define SECCOMP_ARCH 0xc00000b7u
#elif defined(__arm__) && defined(__ARMEL__)
#define SECCOMP_ARCH 0x40000028u
#elif defined(__riscv) && __riscv_xlen == 64
#define SECCOMP_ARCH 0xc00000f3u
#elif defined(__i386__)
#define SECCOMP_ARCH 0x40000003u
#else
#define SECCOMP_ARCH 0u
#endif

static const uint32_t denied_calls[] = {
    SYS_socket,
    SYS_connect,
    SYS_bind,
    SYS_listen,
    SYS_ptrace,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_mount,
    SYS_umount2,
    SYS_pivot_root,
    SYS_chroot,
    SYS_unshare,
    SYS_setns,
    SYS_keyctl,
    SYS_add_key,
    SYS_request_key,
    SYS_bpf,
    SYS_kexec_load,
    SYS_init_module,
    SYS_finit_module,
    SYS_delete_module,
    SYS_reboot,
    SYS_swapon,
    SYS_swapoff,
    SYS_sethostname,
    SYS_setdomainname,
    SYS_setsid,
    SYS_setpgid,
    SYS_perf_event_open,
    SYS_rt_sigqueueinfo,
    SYS_rt_tgsigqueueinfo,
    SYS_acct,
    SYS_quotactl,
    SYS_personality,
    SYS_open_by_handle_at,
#ifdef SYS_settimeofday /* 32-bit musl spells the clock calls otherwise; they need root anyway */
    SYS_settimeofday,
    SYS_clock_settime,
    SYS_clock_adjtime,
    SYS_adjtimex,
#endif
#ifdef SYS_accept
    SYS_accept,
#endif
#ifdef SYS_accept4
    SYS_accept4,
#endif
#ifdef SYS_kexec_file_load
    SYS_kexec_file_load,
#endif
#ifdef SYS_userfaultfd
    SYS_userfaultfd,
#endif
    424 /* pidfd_send_signal */,
    425 /* io_uring_setup */,
    426 /* io_uring_enter */,
    427 /* io_uring_register */,
    428 /* open_tree */,
    429 /* move_mount */,
    430 /* fsopen */,
    432 /* fsmount */,
    438 /* pidfd_getfd */,
    440 /* process_madvise */,
    442 /* mount_setattr */
};

/* Allowed towards the process itself only (first argument its id; 0 too for prlimit64). */
static const uint32_t own_only_calls[] = {SYS_kill, SYS_tgkill, SYS_tkill, SYS_prlimit64};

static size_t build_filter(bpf_op *ops, uint32_t pid) {
    size_t n = 0;
    ops[n++] = (bpf_op){BPF_LOAD, 0, 0, AT_ARCH};
    ops[n++] = (bpf_op){BPF_EQUAL, 1, 0, SECCOMP_ARCH};
    ops[n++] = (bpf_op){BPF_RETURN, 0, 0, ACTION_KILL};
    ops[n++] = (bpf_op){BPF_LOAD, 0, 0, AT_NUMBER};
    ops[n++] = (bpf_op){BPF_AT_LEAST, 0, 1, 0x40000000u}; /* x32 calls, or none at all */
    ops[n++] = (bpf_op){BPF_RETURN, 0, 0, ACTION_KILL};
    for (size_t i = 0; i < sizeof own_only_calls / sizeof *own_only_calls; i++) {
        const bool zero = own_only_calls[i] == SYS_prlimit64;
        ops[n++] = (bpf_op){BPF_EQUAL, 0, 5, own_only_calls[i]};
        ops[n++] = (bpf_op){BPF_LOAD, 0, 0, AT_ARG0};
        ops[n++] = (bpf_op){BPF_EQUAL, 2, 0, pid};
        ops[n++] = (bpf_op){BPF_EQUAL, 1, 0, zero ? 0 : pid};
        ops[n++] = (bpf_op){BPF_RETURN, 0, 0, ACTION_EPERM};
        ops[n++] = (bpf_op){BPF_RETURN, 0, 0, ACTION_ALLOW};
    }
    ops[n++] = (bpf_op){BPF_EQUAL, 0, 1, CALL_CLONE3};
    ops[n++] = (bpf_op){BPF_RETURN, 0, 0, ACTION_ENOSYS};
    ops[n++] = (bpf_op){BPF_EQUAL, 0, 4, SYS_clone};
    ops[n++] = (bpf_op){BPF_LOAD, 0, 0, AT_ARG0};
    ops[n++] = (bpf_op){BPF_ANY_BIT, 0, 1, CLONE_NAMESPACES};
    ops[n++] = (bpf_op){BPF_RETURN, 0, 0, ACTION_EPERM};
    ops[n++] = (bpf_op){BPF_RETURN, 0, 0, ACTION_ALLOW};
    for (size_t i = 0; i < sizeof denied_calls / sizeof *denied_calls; i++) {
        ops[n++] = (bpf_op){BPF_EQUAL, 0, 1, denied_calls[i]};
        ops[n++] = (bpf_op){BPF_RETURN, 0, 0, ACTION_EPERM};
    }
    ops[n++] = (bpf_op){BPF_RETURN, 0, 0, ACTION_ALLOW};
    return n;
}

/* 0 or errno. Needs no_new_privs. */
static int enter_seccomp(void) {
    bpf_op ops[OPS_MAX];
    _Static_assert(OPS_MAX >= 15 + 6 * sizeof own_only_calls / sizeof *own_only_calls +
                                  2 * sizeof denied_calls / sizeof *denied_calls,
                   "the filter does not fit");
    if (SECCOMP_ARCH == 0u) return ENOSYS;
    const bpf_program program = {(uint16_t)build_filter(ops, (uint32_t)getpid()), ops};
    return prctl(PR_SET_SECCOMP, MODE_FILTER, &program, 0, 0) == 0 ? 0 : errno;
}

/* ---- Landlock (landlock(7)) ------------------------------------------------------------------------------------- */

enum {
    LANDLOCK_CREATE = 444,
    LANDLOCK_ADD = 445,
    LANDLOCK_RESTRICT = 446,
    LANDLOCK_VERSION = 1,
    RULE_PATH = 1
};

#define FS_EXECUTE 0x1u
#define FS_WRITE_FILE 0x2u
#define FS_READ_FILE 0x4u
#define FS_READ_DIR 0x8u
#define FS_ABI1 0x1fffu     /* everything of version 1 */
#define FS_REFER 0x2000u    /* version 2 */
#define FS_TRUNCATE 0x4000u /* version 3 */
#define FS_IOCTL 0x8000u    /* version 5 */
#define FS_LOAD (FS_EXECUTE | FS_READ_FILE | FS_READ_DIR)

typedef struct landlock_ruleset {
    uint64_t fs, net, scoped; /* net from version 4, scoped from 6 */
} landlock_ruleset;

/* The kernel's struct is packed: 12 bytes. */
typedef struct landlock_path {
    uint64_t access;
    int32_t fd;
} __attribute__((packed)) landlock_path;

static uint64_t handled_fs(long abi) {
    return FS_ABI1 | (abi >= 2 ? FS_REFER : 0u) | (abi >= 3 ? FS_TRUNCATE : 0u) |
           (abi >= 5 ? FS_IOCTL : 0u);
}

/* Adds `path` when it is there; 0 or errno. */
static int allow(int ruleset, const char *path, uint64_t access) {
    const landlock_path rule = {access, open(path, O_PATH | O_CLOEXEC)};
    if (rule.fd < 0) return 0; /* nothing there to be read */
    const int code = syscall(LANDLOCK_ADD, ruleset, RULE_PATH, &rule, 0) == 0 ? 0 : errno;
    (void)close(rule.fd);
    return code;
}

static int allow_all(int ruleset, const char *program, const char *dir, uint64_t handled) {
    static const struct {
        const char *path;
        uint64_t access;
    } rules[] = {
        {"/usr", FS_LOAD},
        {"/lib", FS_LOAD},
        {"/lib64", FS_LOAD},
        {"/lib32", FS_LOAD},
        {"/system", FS_LOAD},
        {"/apex", FS_LOAD},
        {"/vendor/lib64", FS_LOAD},
        {"/etc/ld.so.cache", FS_READ_FILE},
        {"/sys", FS_READ_FILE | FS_READ_DIR},
        {"/proc/self", FS_READ_FILE | FS_READ_DIR}, /* this process: its id survives exec */
        {"/proc/cpuinfo", FS_READ_FILE},
        {"/proc/meminfo", FS_READ_FILE},
        {"/proc/stat", FS_READ_FILE},
        {"/proc/loadavg", FS_READ_FILE},
        {"/dev/null", FS_READ_FILE | FS_WRITE_FILE},
        {"/dev/zero", FS_READ_FILE},
        {"/dev/urandom", FS_READ_FILE},
    };
    int code = allow(ruleset, program, FS_EXECUTE | FS_READ_FILE);
    if (code == 0) code = allow(ruleset, dir, handled & ~(uint64_t)FS_EXECUTE);
    if (code == 0 && nas__probe_root()[0] != '\0')
        code = allow(ruleset, nas__probe_root(), FS_READ_FILE | FS_READ_DIR);
    for (size_t i = 0; i < sizeof rules / sizeof *rules && code == 0; i++) {
        code = allow(ruleset, rules[i].path, rules[i].access);
    }
    return code;
}

/* Version in force, or 0 with *code = errno. Needs no_new_privs. */
static int32_t enter_landlock(const char *program, const char *dir, int32_t *code) {
    const long abi = syscall(LANDLOCK_CREATE, NULL, 0, LANDLOCK_VERSION);
    if (abi < 1) {
        *code = errno;
        return 0;
    }
    const landlock_ruleset rules = {handled_fs(abi), abi >= 4 ? 3u : 0u, abi >= 6 ? 3u : 0u};
    const size_t size = abi >= 6   ? sizeof rules
                        : abi >= 4 ? 2 * sizeof(uint64_t)
                                   : sizeof(uint64_t);
    const long ruleset = syscall(LANDLOCK_CREATE, &rules, size, 0);
    if (ruleset < 0) {
        *code = errno;
        return 0;
    }
    *code = allow_all((int)ruleset, program, dir, rules.fs);
    if (*code == 0 && syscall(LANDLOCK_RESTRICT, (int)ruleset, 0) != 0) *code = errno;
    (void)close((int)ruleset);
    return *code == 0 ? (int32_t)abi : 0;
}

/* ---- limits ------------------------------------------------------------------------------------------------------ */

enum { FILE_BYTES = 1 << 20, FILES = 256, PROCESSES = 4096 };

/* setrlimit names its argument by an enum in glibc and an int in musl: a macro fits both. Never raises a limit. */
#define LIMIT(resource, bytes)                                                                     \
    limit_to(getrlimit((resource), &now), &now, (bytes)) && setrlimit((resource), &now) == 0

static bool limit_to(int got, struct rlimit *now, rlim_t value) {
    if (got != 0) return false;
    const rlim_t most =
        now->rlim_max == RLIM_INFINITY || now->rlim_max > value ? value : now->rlim_max;
    *now = (struct rlimit){most, most};
    return true;
}

/* What a program may take without pushing others out: the memory that is available now, at least 1 GB, at most what the
 * machine has. */
static rlim_t memory_limit(void) {
    const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    const rlim_t least = (rlim_t)1 << 30;
    const rlim_t all = pages > 0 && page > 0 ? (rlim_t)pages * (rlim_t)page : (rlim_t)1 << 32;
    const int64_t available = nas__probe_available_bytes();
    const rlim_t most = available > 0 && (rlim_t)available < all ? (rlim_t)available : all;
    return most > least ? most : least;
}

/* When memory runs out all the same, the kernel takes this process first. Raising is always permitted. */
static void be_the_victim(void) {
    const int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0) return;
    (void)!write(fd, "1000", 4); /* without it the deadline is what is left */
    (void)close(fd);
}

static bool enter_limits(int64_t cpu_seconds) {
    struct rlimit now;
    bool ok = LIMIT(RLIMIT_CPU, (rlim_t)cpu_seconds);
    ok = ok && LIMIT(RLIMIT_AS, memory_limit());
    ok = ok && LIMIT(RLIMIT_FSIZE, (rlim_t)FILE_BYTES);
    ok = ok && LIMIT(RLIMIT_CORE, (rlim_t)0);
    ok = ok && LIMIT(RLIMIT_NOFILE, (rlim_t)FILES);
    if (geteuid() != 0)
        ok = ok && LIMIT(RLIMIT_NPROC, (rlim_t)PROCESSES); /* root is not bound by it */
    be_the_victim();
    return ok;
}

static bool failed(nas__limits *l, const char *step) {
    l->failed_errno = errno != 0 ? errno : EPERM;
    l->failed_step = step;
    return false;
}

bool nas__sandbox_enter(pid_t parent, const char *program, const char *dir, int64_t cpu_seconds,
                        nas__limits *out) {
    *out = (nas__limits){0};
    errno = 0;
    if (setpgid(0, 0) != 0) return failed(out, "process group");
    out->process_group = true;
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0 || getppid() != parent)
        return failed(out, "parent death");
    out->parent_death = true;
    if (!enter_limits(cpu_seconds)) return failed(out, "resource limits");
    out->rlimits = true;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return failed(out, "no_new_privs");
    out->no_new_privs = true;
    out->landlock_abi = enter_landlock(program, dir, &out->landlock_errno);
    out->seccomp_errno = enter_seccomp();
    out->seccomp = out->seccomp_errno == 0;
    return true;
}

nas_status nas__sandbox_probe(nas_ctx *ctx, nas__limits *out) {
    int report[2];
    if (pipe(report) != 0)
        return nas_fail(ctx, NAS_ERR_IO, "sandbox probe: pipe: %s", strerror(errno));
    const pid_t parent = getpid();
    const pid_t pid = fork();
    if (pid == 0) {
        nas__limits limits;
        (void)nas__sandbox_enter(parent, "/proc/self/exe", "/", 10, &limits);
        const ssize_t n = write(report[1], &limits, sizeof limits);
        _exit(n == (ssize_t)sizeof limits ? 0 : 1);
    }
    const int fork_errno = errno;
    (void)close(report[1]);
    nas__limits limits;
    ssize_t n = -1;
    if (pid > 0) {
        do {
            n = read(report[0], &limits, sizeof limits);
        } while (n < 0 && errno == EINTR);
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            continue;
    }
    (void)close(report[0]);
    if (pid < 0) return nas_fail(ctx, NAS_ERR_IO, "sandbox probe: fork: %s", strerror(fork_errno));
    if (n != (ssize_t)sizeof limits)
        return nas_fail(ctx, NAS_ERR_INTERNAL, "sandbox probe: the child said nothing");
    if (limits.failed_errno != 0) {
        return nas_fail(ctx, NAS_ERR_UNSUPPORTED,
                        "sandbox: %s: %s; runs would not be limited, so none is started",
                        limits.failed_step, strerror(limits.failed_errno));
    }
    *out = limits;
    return NAS_OK;
}

void nas__limits_json(nas_json *j, const nas__limits *limits) {
    nas_json_array(j);
    nas_json_string(j, "deadline");
    if (limits->rlimits) nas_json_string(j, "rlimits");
    if (limits->no_new_privs) nas_json_string(j, "no_new_privs");
    if (limits->process_group) nas_json_string(j, "process_group");
    if (limits->parent_death) nas_json_string(j, "parent_death");
    if (limits->seccomp) nas_json_string(j, "seccomp");
    if (limits->landlock_abi > 0) {
        char text[32] = "landlock-abi";
        const int32_t abi = limits->landlock_abi;
        size_t n = strlen(text);
        if (abi >= 10) text[n++] = (char)('0' + abi / 10 % 10);
        text[n++] = (char)('0' + abi % 10);
        text[n] = '\0';
        nas_json_string(j, text);
    }
    nas_json_array_end(j);
}
