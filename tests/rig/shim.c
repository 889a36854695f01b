/* shim.c - preloaded into qemu-user: answers for the kernel of a fake phone where the host's kernel would show.
 *
 * The host has fewer processors than a phone, so masks and numbers of processors are kept here: RIG_CPUS of them, any
 * of which a program can be pinned to and read back. With RIG_CALM=1 (virtual clock) the run-queue waits of the host
 * are hidden as well: they belong to a real clock. Works because qemu-user calls libc's syscall() and pread64() for
 * these. Threads without a mask of their own share the process's. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { THREADS_MAX = 256 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    long task;
    uint64_t mask;
} known[THREADS_MAX];
static int n_known;
static uint64_t process_mask;

static uint64_t all_cpus(void) {
    const char *text = getenv("RIG_CPUS");
    const long n = text != NULL ? strtol(text, NULL, 10) : 8;
    return n >= 64 || n < 1 ? ~UINT64_C(0) : (UINT64_C(1) << n) - 1;
}

static long own_task(void) {
    return (long)gettid();
}

static uint64_t mask_of(long task) {
    for (int i = 0; i < n_known; i++) {
        if (known[i].task == task) return known[i].mask;
    }
    return process_mask != 0 ? process_mask : all_cpus();
}

static long set_mask(long task, size_t len, const void *from) {
    uint64_t mask = 0;
    memcpy(&mask, from, len < sizeof mask ? len : sizeof mask);
    mask &= all_cpus();
    if (mask == 0) {
        errno = EINVAL;
        return -1;
    }
    if (task == 0) task = own_task();
    int at = 0;
    while (at < n_known && known[at].task != task)
        at++;
    if (at < THREADS_MAX) {
        known[at].task = task;
        known[at].mask = mask;
        if (at == n_known) n_known++;
    }
    if (task == (long)getpid()) process_mask = mask;
    return 0;
}

static long get_mask(long task, size_t len, void *to) {
    const uint64_t mask = mask_of(task != 0 ? task : own_task());
    if (len < sizeof mask) {
        errno = EINVAL;
        return -1;
    }
    memcpy(to, &mask, sizeof mask);
    return (long)sizeof mask;
}

static long get_cpu(unsigned *cpu, unsigned *node) {
    const uint64_t mask = mask_of(own_task());
    if (cpu != NULL) *cpu = (unsigned)__builtin_ctzll(mask);
    if (node != NULL) *node = 0;
    return 0;
}

__attribute__((visibility("default"))) long syscall(long number, ...) {
    static long (*next)(long, ...);
    long a[6];
    va_list list;
    va_start(list, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(list, long);
    va_end(list);
    if (number == SYS_sched_setaffinity || number == SYS_sched_getaffinity ||
        number == SYS_getcpu) {
        (void)pthread_mutex_lock(&lock);
        const long result = number == SYS_sched_setaffinity
                                ? set_mask(a[0], (size_t)a[1], (const void *)(uintptr_t)a[2])
                            : number == SYS_sched_getaffinity
                                ? get_mask(a[0], (size_t)a[1], (void *)(uintptr_t)a[2])
                                : get_cpu((unsigned *)(uintptr_t)a[0], (unsigned *)(uintptr_t)a[1]);
        (void)pthread_mutex_unlock(&lock);
        return result;
    }
    if (next == NULL) *(void **)&next = dlsym(RTLD_NEXT, "syscall");
    return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* "<ran ns> <waited ns> <slices>" of a thread that nobody disturbs. */
static const char calm_schedstat[] = "0 0 1\n";

__attribute__((visibility("default"))) ssize_t pread64(int fd, void *to, size_t len, off_t offset) {
    static ssize_t (*next)(int, void *, size_t, off_t);
    static const char name[] = "/schedstat";
    if (getenv("RIG_CALM") != NULL && len >= sizeof calm_schedstat && offset == 0) {
        char link[64], path[256];
        (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        const ssize_t n = readlink(link, path, sizeof path);
        const ssize_t tail = (ssize_t)sizeof name - 1;
        if (n > tail && memcmp(path + n - tail, name, (size_t)tail) == 0) {
            memcpy(to, calm_schedstat, sizeof calm_schedstat - 1);
            return (ssize_t)sizeof calm_schedstat - 1;
        }
    }
    if (next == NULL) *(void **)&next = dlsym(RTLD_NEXT, "pread64");
    return next(fd, to, len, offset);
}
