/* train_pool.h - a few threads that stay, for work that cannot fail. Internal to eval/. */
#ifndef NAS_EVAL_TRAIN_POOL_H
#define NAS_EVAL_TRAIN_POOL_H

#include "core/core.h"

enum { NAS__POOL_THREADS_MAX = 64 };

/* Item `index` on worker `worker` in [0, threads); the caller is worker 0. */
typedef void (*nas__pool_fn)(void *arg, size_t index, int worker);

typedef struct nas__pool nas__pool;
/* nas__pool_new - threads 1..NAS__POOL_THREADS_MAX; when the system refuses threads there are fewer. */
nas_status nas__pool_new(nas_ctx *ctx, int threads, nas__pool **out);
void nas__pool_free(nas__pool *pool);
/* nas__pool_run - fn for every index in [0, n), taken in order; returns when all are done. */
void nas__pool_run(nas__pool *pool, size_t n, nas__pool_fn fn, void *arg);

#endif
