/* mem.c - the only place that calls malloc, realloc and free; overflow checks, fault injection, arenas.
 * The two counters are the one exception to "no globals": tests count blocks and fail the Nth allocation. */
#include "core/core.h"

#include <stdalign.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static atomic_long live_blocks;
static atomic_long fail_after; /* 0 = never */

void nas_mem_fail_after(long n) {
    atomic_store(&fail_after, n);
}

long nas_mem_live(void) {
    return atomic_load(&live_blocks);
}

static bool injected_failure(void) {
    if (atomic_load(&fail_after) <= 0) return false;
    return atomic_fetch_sub(&fail_after, 1) == 1;
}

static void *allocate(nas_ctx *ctx, size_t n, size_t size, size_t align) {
    size_t bytes = 0;
    if (nas_mul_size(ctx, n, size, &bytes) != NAS_OK) return NULL;
    if (bytes == 0) bytes = 1;
    void *p = NULL;
    if (!injected_failure()) {
        if (align <= alignof(max_align_t)) {
            p = calloc(1, bytes);
        } else if (posix_memalign(&p, align, bytes) == 0) {
            memset(p, 0, bytes);
        } else {
            p = NULL;
        }
    }
    if (p == NULL) {
        (void)nas_fail(ctx, NAS_ERR_NOMEM, "out of memory: %zu bytes", bytes);
        return NULL;
    }
    atomic_fetch_add(&live_blocks, 1);
    return p;
}

void *nas_alloc_array(nas_ctx *ctx, size_t n, size_t size) {
    return allocate(ctx, n, size, 0);
}

void *nas_alloc_aligned(nas_ctx *ctx, size_t n, size_t size, size_t align) {
    return allocate(ctx, n, size, align);
}

nas_status nas_grow(nas_ctx *ctx, void *data_pp, size_t *cap, size_t need, size_t size) {
    if (need <= *cap) return NAS_OK;
    size_t wanted = *cap < 8 ? 8 : *cap;
    while (wanted < need) {
        if (wanted > SIZE_MAX / 2)
            return nas_fail(ctx, NAS_ERR_RANGE, "array of %zu elements", need);
        wanted *= 2;
    }
    void *fresh = nas_alloc_array(ctx, wanted, size);
    if (fresh == NULL) return NAS_ERR_NOMEM;
    void *old = NULL;
    memcpy(&old, data_pp, sizeof old);
    if (old != NULL) memcpy(fresh, old, *cap * size);
    nas_free(old);
    memcpy(data_pp, &fresh, sizeof fresh);
    *cap = wanted;
    return NAS_OK;
}

void nas_free(void *p) {
    if (p == NULL) return;
    atomic_fetch_sub(&live_blocks, 1);
    free(p);
}

char *nas_strdup(nas_ctx *ctx, const char *text) {
    const size_t len = strlen(text) + 1;
    char *copy = nas_alloc_array(ctx, len, 1);
    if (copy != NULL) memcpy(copy, text, len);
    return copy;
}

/* ---- arenas: a list of blocks, newest first ------------------------------------------------------------------ */

typedef struct arena_block {
    struct arena_block *next;
    size_t used, size; /* bytes of `bytes` */
    unsigned char *bytes;
} arena_block;

struct nas_arena {
    arena_block *head;
    size_t block_bytes;
};

enum { ARENA_ALIGN = 64 };

nas_arena *nas_arena_new(nas_ctx *ctx, size_t block_bytes) {
    nas_arena *arena = nas_alloc_array(ctx, 1, sizeof *arena);
    if (arena == NULL) return NULL;
    arena->block_bytes = block_bytes;
    return arena;
}

void nas_arena_free(nas_arena *arena) {
    if (arena == NULL) return;
    while (arena->head != NULL) {
        arena_block *block = arena->head;
        arena->head = block->next;
        nas_free(block->bytes);
        nas_free(block);
    }
    nas_free(arena);
}

static arena_block *arena_add_block(nas_ctx *ctx, nas_arena *arena, size_t bytes) {
    arena_block *block = nas_alloc_array(ctx, 1, sizeof *block);
    if (block == NULL) return NULL;
    block->size = bytes > arena->block_bytes ? bytes : arena->block_bytes;
    block->bytes = nas_alloc_aligned(ctx, block->size, 1, ARENA_ALIGN);
    if (block->bytes == NULL) {
        nas_free(block);
        return NULL;
    }
    block->next = arena->head;
    arena->head = block;
    return block;
}

void *nas_arena_alloc(nas_ctx *ctx, nas_arena *arena, size_t n, size_t size) {
    size_t bytes = 0;
    if (nas_mul_size(ctx, n, size, &bytes) != NAS_OK) return NULL;
    if (nas_add_size(ctx, bytes, ARENA_ALIGN - 1, &bytes) != NAS_OK) return NULL;
    bytes &= ~(size_t)(ARENA_ALIGN - 1);
    arena_block *block = arena->head;
    if (block == NULL || block->size - block->used < bytes) {
        block = arena_add_block(ctx, arena, bytes);
        if (block == NULL) return NULL;
    }
    void *p = block->bytes + block->used;
    block->used += bytes;
    return p;
}

char *nas_arena_printf(nas_ctx *ctx, nas_arena *arena, const char *format, ...) {
    va_list args;
    va_start(args, format);
    va_list again;
    va_copy(again, args);
    const int len = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *text = len < 0 ? NULL : nas_arena_alloc(ctx, arena, (size_t)len + 1, 1);
    if (text != NULL) (void)vsnprintf(text, (size_t)len + 1, format, again);
    va_end(again);
    return text;
}
