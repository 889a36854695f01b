/* pool.c - the workers of one model: they wait for the next inference spinning, then asleep.
 *
 * Becomes part of model.c, so: C99, pthreads, nothing else. POOL_THREADS_MAX is defined by the includer. One job at a
 * time; pool_run returns when every thread has done its part. Waking a sleeper costs some 15 us, a spinning one 0.5. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <time.h>

enum { POOL_SPIN_NS = 100 * 1000, POOL_SPIN_ROUND = 64, POOL_BARRIER_ROUNDS = 20 * 1000 };

typedef void (*pool_job)(void *arg, int thread, int threads);

struct pool;
typedef struct pool_worker {
    struct pool *pool;
    pthread_t id;
    int index; /* 1 .. threads - 1; the caller is 0 */
} pool_worker;

typedef struct pool {
    int threads;
    unsigned generation; /* atomic: counts jobs */
    int pending;         /* atomic: workers still busy with the current job */
    int arrived;         /* atomic: threads at the barrier */
    unsigned phase;      /* atomic: counts barriers passed */
    int sleepers;        /* atomic: workers that need a signal */
    int ending;          /* written before the last generation */
    pool_job job;
    void *arg;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    pool_worker workers[POOL_THREADS_MAX];
} pool;

static inline void pool_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__) || (defined(__ARM_ARCH) && __ARM_ARCH >= 7)
    __asm__ volatile("yield");
#elif defined(__riscv)
    __asm__ volatile(".4byte 0x0100000f"); /* pause: a hint, a no-op where Zihintpause is missing */
#endif
}

static long long pool_now_ns(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t); /* cannot fail with this clock */
    return (long long)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Returns when the generation differs from `seen`. */
static void pool_await_job(pool *p, unsigned seen) {
    const long long until = pool_now_ns() + POOL_SPIN_NS;
    do {
        for (int i = 0; i < POOL_SPIN_ROUND; i++) {
            if (__atomic_load_n(&p->generation, __ATOMIC_ACQUIRE) != seen) return;
            pool_pause();
        }
    } while (pool_now_ns() < until);
    (void)pthread_mutex_lock(&p->mutex);
    /* Sequentially consistent with pool_run: either it sees this sleeper or we see its generation. */
    (void)__atomic_add_fetch(&p->sleepers, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&p->generation, __ATOMIC_SEQ_CST) == seen) {
        (void)pthread_cond_wait(&p->wake, &p->mutex);
    }
    (void)__atomic_sub_fetch(&p->sleepers, 1, __ATOMIC_SEQ_CST);
    (void)pthread_mutex_unlock(&p->mutex);
}

static void *pool_worker_main(void *arg) {
    pool_worker *self = arg;
    pool *p = self->pool;
    unsigned seen = 0;
    for (;;) {
        pool_await_job(p, seen);
        seen++;
        if (p->ending) return NULL;
        p->job(p->arg, self->index, p->threads);
        (void)__atomic_sub_fetch(&p->pending, 1, __ATOMIC_RELEASE);
    }
}

static void pool_start_job(pool *p) {
    __atomic_store_n(&p->pending, p->threads - 1, __ATOMIC_RELAXED);
    (void)__atomic_add_fetch(&p->generation, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&p->sleepers, __ATOMIC_SEQ_CST) == 0) return;
    (void)pthread_mutex_lock(&p->mutex);
    (void)pthread_cond_broadcast(&p->wake);
    (void)pthread_mutex_unlock(&p->mutex);
}

static void pool_run(pool *p, pool_job job, void *arg) {
    if (p->threads > 1) {
        p->job = job;
        p->arg = arg;
        pool_start_job(p);
    }
    job(arg, 0, p->threads);
    if (p->threads == 1) return;
    const long long until = pool_now_ns() + POOL_SPIN_NS;
    while (__atomic_load_n(&p->pending, __ATOMIC_ACQUIRE) != 0) {
        if (pool_now_ns() < until) {
            pool_pause();
        } else {
            (void)sched_yield(); /* more threads than processors: let the workers finish */
        }
    }
}

/* Inside a job: returns when every thread of the job has called it as often. */
static inline void pool_barrier(pool *p) {
    if (p->threads == 1) return;
    const unsigned phase = __atomic_load_n(&p->phase, __ATOMIC_RELAXED);
    if (__atomic_add_fetch(&p->arrived, 1, __ATOMIC_ACQ_REL) == p->threads) {
        __atomic_store_n(&p->arrived, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&p->phase, phase + 1, __ATOMIC_RELEASE);
        return;
    }
    for (long rounds = 0; __atomic_load_n(&p->phase, __ATOMIC_ACQUIRE) == phase; rounds++) {
        if (rounds < POOL_BARRIER_ROUNDS) {
            pool_pause();
        } else {
            (void)sched_yield(); /* more threads than processors */
        }
    }
}

static void pool_close(pool *p) {
    p->ending = 1;
    pool_start_job(p);
    for (int i = 1; i < p->threads; i++)
        (void)pthread_join(p->workers[i].id, NULL);
    (void)pthread_cond_destroy(&p->wake);
    (void)pthread_mutex_destroy(&p->mutex);
}

/* Returns 0 or an errno value; on failure no thread is left. `p` is zeroed. */
static int pool_open(pool *p, int threads) {
    int error = pthread_mutex_init(&p->mutex, NULL);
    if (error != 0) return error;
    error = pthread_cond_init(&p->wake, NULL);
    if (error != 0) {
        (void)pthread_mutex_destroy(&p->mutex);
        return error;
    }
    p->threads = 1;
    for (int i = 1; i < threads && error == 0; i++) {
        p->workers[i].pool = p;
        p->workers[i].index = i;
        error = pthread_create(&p->workers[i].id, NULL, pool_worker_main, &p->workers[i]);
        if (error == 0) p->threads = i + 1;
    }
    if (error != 0) pool_close(p);
    return error;
}
