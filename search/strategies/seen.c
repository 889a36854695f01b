/* seen.c - the set of points asked so far: hashes in the order asked, with an index for lookups. */
#include "search/strategies/strategies_internal.h"

/* The slot of `hash`, or the free one where it belongs. The table always has free slots. */
static size_t find(const nas__seen *seen, uint64_t hash) {
    const size_t mask = seen->table_size - 1;
    size_t at = (size_t)hash & mask;
    while (seen->table[at] != 0 && seen->hashes[seen->table[at] - 1] != hash)
        at = (at + 1) & mask;
    return at;
}

bool nas__seen_has(const nas__seen *seen, uint64_t hash) {
    return seen->table_size != 0 && seen->table[find(seen, hash)] != 0;
}

nas_status nas__seen_reserve(nas_ctx *ctx, nas__seen *seen) {
    if (seen->n >= UINT32_MAX / 4) {
        return nas_fail(ctx, NAS_ERR_RANGE, "strategy: %zu points asked, limit %" PRIu32, seen->n,
                        UINT32_MAX / 4);
    }
    const nas_status status =
        nas_grow(ctx, &seen->hashes, &seen->cap, seen->n + 1, sizeof *seen->hashes);
    if (status != NAS_OK || seen->table_size >= 2 * (seen->n + 1)) return status;
    const size_t size = seen->table_size == 0 ? 64 : 2 * seen->table_size;
    uint32_t *table = nas_alloc_array(ctx, size, sizeof *table);
    if (table == NULL) return NAS_ERR_NOMEM;
    nas_free(seen->table);
    seen->table = table;
    seen->table_size = size;
    for (size_t i = 0; i < seen->n; i++)
        seen->table[find(seen, seen->hashes[i])] = (uint32_t)i + 1;
    return NAS_OK;
}

void nas__seen_add(nas__seen *seen, uint64_t hash) {
    seen->hashes[seen->n] = hash;
    seen->table[find(seen, hash)] = (uint32_t)seen->n + 1;
    seen->n++;
}

void nas__seen_deinit(nas__seen *seen) {
    nas_free(seen->table);
    nas_free(seen->hashes);
    *seen = (nas__seen){0};
}
