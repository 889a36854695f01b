/* parallel.c - one parallel loop over independent items, on plain threads. */
#define _GNU_SOURCE /* sched_getaffinity */
#include "core/core.h"

#include <pthread.h>
#include <sched.h>
#include <string.h>

typedef struct shared_loop {
    pthread_mutex_t lock;
    size_t next, n;
    nas_parallel_fn fn;
    void *arg;
    size_t failed_index; /* lowest failing index, n when none */
    nas_status failed_status;
    char failed_message[1024];
} shared_loop;

typedef struct worker_args {
    shared_loop *loop;
    nas_ctx *ctx;
    int worker;
} worker_args;

static void *worker_main(void *p) {
    worker_args *w = p;
    shared_loop *loop = w->loop;
    for (;;) {
        pthread_mutex_lock(&loop->lock);
        const bool stop = loop->next >= loop->n || loop->failed_index < loop->n;
        const size_t index = loop->next;
        if (!stop) loop->next++;
        pthread_mutex_unlock(&loop->lock);
        if (stop) return NULL;
        const nas_status status = loop->fn(w->ctx, loop->arg, index, w->worker);
        if (status == NAS_OK) continue;
        pthread_mutex_lock(&loop->lock);
        if (index < loop->failed_index) {
            loop->failed_index = index;
            loop->failed_status = status;
            (void)strncpy(loop->failed_message, nas_ctx_message(w->ctx),
                          sizeof loop->failed_message - 1);
        }
        pthread_mutex_unlock(&loop->lock);
    }
}

enum { THREADS_MAX = 256 };

nas_status nas_parallel(nas_ctx *ctx, int threads, size_t n, nas_parallel_fn fn, void *arg) {
    if (threads < 1 || threads > THREADS_MAX) {
        return nas_fail(ctx, NAS_ERR_INVALID, "parallel loop: %d threads, 1..%d", threads,
                        THREADS_MAX);
    }
    if ((size_t)threads > n) threads = n == 0 ? 1 : (int)n;
    shared_loop loop = {.n = n, .fn = fn, .arg = arg, .failed_index = n, .failed_status = NAS_OK};
    if (pthread_mutex_init(&loop.lock, NULL) != 0) {
        return nas_fail(ctx, NAS_ERR_NOMEM, "parallel loop: no mutex");
    }
    worker_args args[THREADS_MAX];
    pthread_t ids[THREADS_MAX];
    int started = 0;
    args[0] = (worker_args){.loop = &loop, .ctx = nas_ctx_child(ctx)};
    for (int i = 1; args[0].ctx != NULL && i < threads; i++) {
        args[i] = (worker_args){.loop = &loop, .ctx = nas_ctx_child(ctx), .worker = i};
        if (args[i].ctx == NULL) break; /* fewer workers do the same work */
        if (pthread_create(&ids[i], NULL, worker_main, &args[i]) != 0) {
            nas_ctx_free(args[i].ctx);
            break;
        }
        started = i;
    }
    if (args[0].ctx != NULL) (void)worker_main(&args[0]);
    for (int i = 1; i <= started; i++) {
        pthread_join(ids[i], NULL);
        nas_ctx_free(args[i].ctx);
    }
    pthread_mutex_destroy(&loop.lock);
    if (args[0].ctx == NULL) return nas_fail(ctx, NAS_ERR_NOMEM, "parallel loop: no context");
    nas_ctx_free(args[0].ctx);
    if (loop.failed_index < n) return nas_fail(ctx, loop.failed_status, "%s", loop.failed_message);
    return NAS_OK;
}

int nas_cpu_count(void) {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
    const int n = CPU_COUNT(&set);
    return n < 1 ? 1 : n;
}
