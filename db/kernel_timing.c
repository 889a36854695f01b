/* kernel_timing.c - what a tuner has measured: one row a kernel, way, device and number of threads. */
#include "db/db_internal.h"

static nas_db_kernel_timing timing_of(nas__stmt *s, int first) {
    return (nas_db_kernel_timing){
        .p50_ns = nas__column_opt_double(s, first).value, /* NOT NULL in the schema */
        .lo_ns = nas__column_opt_double(s, first + 1).value,
        .hi_ns = nas__column_opt_double(s, first + 2).value,
        .runs = (int32_t)nas__column_i64(s, first + 3),
    };
}

nas_status nas_db_kernel_timing_put(nas_ctx *ctx, nas_db *db, const nas_db_kernel_key *key,
                                    const nas_db_kernel_timing *timing) {
    nas__stmt s = nas__stmt_prepare(
        ctx, db, "store the timing of a kernel",
        "INSERT INTO kernel_timings (kernel, device, threads, way, p50_ns, lo_ns, hi_ns, runs,"
        " measured_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (kernel, device, threads, way) DO UPDATE SET p50_ns = excluded.p50_ns,"
        " lo_ns = excluded.lo_ns, hi_ns = excluded.hi_ns, runs = excluded.runs,"
        " measured_ms = excluded.measured_ms");
    nas__bind_text(&s, 1, key->kernel);
    nas__bind_text(&s, 2, key->device);
    nas__bind_i64(&s, 3, key->threads);
    nas__bind_text(&s, 4, key->way);
    nas__bind_double(&s, 5, timing->p50_ns);
    nas__bind_double(&s, 6, timing->lo_ns);
    nas__bind_double(&s, 7, timing->hi_ns);
    nas__bind_i64(&s, 8, timing->runs);
    nas__bind_i64(&s, 9, nas_unix_time_ms());
    return nas_wrap(ctx, nas__stmt_run(&s), "%s as %s", key->kernel, key->way);
}

nas_status nas_db_kernel_timing_get(nas_ctx *ctx, nas_db *db, const nas_db_kernel_key *key,
                                    bool *found, nas_db_kernel_timing *out) {
    nas__stmt s = nas__stmt_prepare(ctx, db, "look for the timing of a kernel",
                                    "SELECT p50_ns, lo_ns, hi_ns, runs FROM kernel_timings"
                                    " WHERE kernel = ? AND device = ? AND threads = ? AND way = ?");
    nas__bind_text(&s, 1, key->kernel);
    nas__bind_text(&s, 2, key->device);
    nas__bind_i64(&s, 3, key->threads);
    nas__bind_text(&s, 4, key->way);
    nas_db_kernel_timing timing = {0};
    const bool row = nas__stmt_row(&s);
    if (row) timing = timing_of(&s, 0);
    const nas_status status = nas__stmt_end(&s);
    if (status != NAS_OK) return nas_wrap(ctx, status, "%s as %s", key->kernel, key->way);
    *found = row;
    if (row) *out = timing;
    return NAS_OK;
}

nas_status nas_db_kernel_timing_best(nas_ctx *ctx, nas_db *db, const nas_db_kernel_key *key,
                                     char **way, nas_db_kernel_timing *out) {
    nas__stmt s = nas__stmt_prepare(ctx, db, "look for the best way of a kernel",
                                    "SELECT p50_ns, lo_ns, hi_ns, runs, way FROM kernel_timings"
                                    " WHERE kernel = ? AND device = ? AND threads = ?"
                                    " ORDER BY p50_ns, way LIMIT 1");
    nas__bind_text(&s, 1, key->kernel);
    nas__bind_text(&s, 2, key->device);
    nas__bind_i64(&s, 3, key->threads);
    nas_db_kernel_timing timing = {0};
    char *text = NULL;
    if (nas__stmt_row(&s)) {
        timing = timing_of(&s, 0);
        text = nas__column_strdup(&s, 4);
    }
    const nas_status status = nas__stmt_end(&s);
    if (status != NAS_OK) {
        nas_free(text);
        return nas_wrap(ctx, status, "%s", key->kernel);
    }
    *way = text;
    if (text != NULL) *out = timing;
    return NAS_OK;
}

void nas_db_kernel_timings_free(char **kernels, nas_db_kernel_timing *timings, size_t n) {
    for (size_t i = 0; i < n && kernels != NULL; i++)
        nas_free(kernels[i]);
    nas_free(kernels);
    nas_free(timings);
}

nas_status nas_db_kernel_timings(nas_ctx *ctx, nas_db *db, const nas_db_kernel_key *key,
                                 char ***kernels, nas_db_kernel_timing **timings, size_t *n) {
    nas__stmt s = nas__stmt_prepare(ctx, db, "read the timings of kernels",
                                    "SELECT p50_ns, lo_ns, hi_ns, runs, kernel FROM kernel_timings"
                                    " WHERE device = ? AND threads = ? AND way = ?"
                                    " ORDER BY kernel");
    nas__bind_text(&s, 1, key->device);
    nas__bind_i64(&s, 2, key->threads);
    nas__bind_text(&s, 3, key->way);
    char **names = nas_alloc_array(ctx, 0, sizeof *names);
    nas_db_kernel_timing *list = nas_alloc_array(ctx, 0, sizeof *list);
    if (names == NULL || list == NULL) s.status = NAS_ERR_NOMEM;
    size_t count = 0, cap_names = 0, cap = 0;
    while (nas__stmt_row(&s)) {
        s.status = nas_grow(ctx, &names, &cap_names, count + 1, sizeof *names);
        if (s.status == NAS_OK) s.status = nas_grow(ctx, &list, &cap, count + 1, sizeof *list);
        if (s.status != NAS_OK) break;
        list[count] = timing_of(&s, 0);
        names[count++] = nas__column_strdup(&s, 4);
    }
    const nas_status status = nas__stmt_end(&s);
    if (status != NAS_OK) {
        nas_db_kernel_timings_free(names, list, count);
        return nas_wrap(ctx, status, "%s", key->device);
    }
    *kernels = names;
    *timings = list;
    *n = count;
    return NAS_OK;
}
