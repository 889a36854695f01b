/* train_pool.c - threads that wait on a condition between jobs: one wake-up a training step or layer. */
#include "eval/train_pool.h"

#include <pthread.h>

typedef struct pool_thread {
    nas__pool *pool;
    pthread_t id;
    int worker;
} pool_thread;

struct nas__pool {
    pthread_mutex_t lock;
    pthread_cond_t wake, done;
    pool_thread threads[NAS__POOL_THREADS_MAX];
    int n_threads; /* beside the caller */
    uint64_t job;  /* counts jobs, so that a thread sees a new one */
    bool stop;
    nas__pool_fn fn;
    void *arg;
    size_t next, n, unfinished;
};

/* Takes items until none is left; the lock is held on entry and on return. */
static void work(nas__pool *pool, int worker) {
    while (pool->next < pool->n) {
        const size_t index = pool->next++;
        pthread_mutex_unlock(&pool->lock);
        pool->fn(pool->arg, index, worker);
        pthread_mutex_lock(&pool->lock);
        pool->unfinished--;
        if (pool->unfinished == 0) pthread_cond_signal(&pool->done);
    }
}

static void *thread_main(void *p) {
    const pool_thread *self = p;
    nas__pool *pool = self->pool;
    uint64_t seen = 0;
    pthread_mutex_lock(&pool->lock);
    while (!pool->stop) {
        if (pool->job == seen) {
            pthread_cond_wait(&pool->wake, &pool->lock);
            continue;
        }
        seen = pool->job;
        work(pool, self->worker);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

static bool init_sync(nas__pool *pool) {
    if (pthread_mutex_init(&pool->lock, NULL) != 0) return false;
    if (pthread_cond_init(&pool->wake, NULL) != 0) {
        pthread_mutex_destroy(&pool->lock);
        return false;
    }
    if (pthread_cond_init(&pool->done, NULL) != 0) {
        pthread_cond_destroy(&pool->wake);
        pthread_mutex_destroy(&pool->lock);
        return false;
    }
    return true;
}

nas_status nas__pool_new(nas_ctx *ctx, int threads, nas__pool **out) {
    if (threads < 1 || threads > NAS__POOL_THREADS_MAX) {
        return nas_fail(ctx, NAS_ERR_RANGE, "threads = %d, must be 1..%d", threads,
                        NAS__POOL_THREADS_MAX);
    }
    nas__pool *pool = nas_alloc_array(ctx, 1, sizeof *pool);
    if (pool == NULL) return NAS_ERR_NOMEM;
    if (!init_sync(pool)) {
        nas_free(pool);
        return nas_fail(ctx, NAS_ERR_NOMEM, "thread pool: no mutex or condition left");
    }
    for (int i = 0; i < threads - 1; i++) {
        pool->threads[i] = (pool_thread){.pool = pool, .worker = i + 1};
        if (pthread_create(&pool->threads[i].id, NULL, thread_main, &pool->threads[i]) != 0) break;
        pool->n_threads = i + 1;
    }
    *out = pool;
    return NAS_OK;
}

void nas__pool_free(nas__pool *pool) {
    if (pool == NULL) return;
    pthread_mutex_lock(&pool->lock);
    pool->stop = true;
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
    for (int i = 0; i < pool->n_threads; i++)
        pthread_join(pool->threads[i].id, NULL);
    pthread_cond_destroy(&pool->done);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
    nas_free(pool);
}

void nas__pool_run(nas__pool *pool, size_t n, nas__pool_fn fn, void *arg) {
    pthread_mutex_lock(&pool->lock);
    pool->fn = fn;
    pool->arg = arg;
    pool->next = 0;
    pool->n = n;
    pool->unfinished = n;
    pool->job++;
    if (n > 1) pthread_cond_broadcast(&pool->wake);
    work(pool, 0);
    while (pool->unfinished > 0)
        pthread_cond_wait(&pool->done, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
}
