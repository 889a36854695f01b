/* sparse_cells.c - one row a cell; answers come from the cells of one layer and pattern in order of their rates. */
#include "db/sparse_cells.h"
#include "db/db_internal.h"

#include <inttypes.h>
#include <string.h>

enum { CELLS_MAX = 256 };

static void bind_layer(nas__stmt *s, int first, const nas_db_sparse_layer *l) {
    const int32_t values[] = {l->kernel, l->stride, l->in_c, l->out_c, l->out_h, l->out_w, l->bits};
    for (int i = 0; i < 7; i++)
        nas__bind_i64(s, first + i, values[i]);
}

nas_status nas_db_sparse_put(nas_ctx *ctx, nas_db *db, const nas_db_sparse_cell *cell,
                             const char *passport) {
    nas__stmt s = nas__stmt_prepare(
        ctx, db, "store what a sparse layer gains",
        "INSERT OR REPLACE INTO sparse_cells (fingerprint, kernel, stride, in_c, out_c, out_h,"
        " out_w, bits, pattern, rate, device, target, dense, sparse, dense_ns, sparse_ns,"
        " direct_ns, peak_gflops, passport, measured_ms)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
    nas__bind_text(&s, 1, cell->fingerprint);
    bind_layer(&s, 2, &cell->layer);
    nas__bind_text(&s, 9, cell->pattern);
    nas__bind_double(&s, 10, cell->rate);
    nas__bind_text(&s, 11, cell->device);
    nas__bind_text(&s, 12, cell->target);
    nas__bind_text(&s, 13, cell->dense);
    nas__bind_text(&s, 14, cell->sparse);
    nas__bind_double(&s, 15, cell->dense_ns);
    nas__bind_double(&s, 16, cell->sparse_ns);
    nas__bind_opt_double(&s, 17, cell->direct_ns);
    nas__bind_opt_double(&s, 18, cell->peak_gflops);
    nas__bind_text_or_null(&s, 19, passport);
    nas__bind_i64(&s, 20, nas_unix_time_ms());
    return nas_wrap(ctx, nas__stmt_run(&s),
                    "%" PRId32 "x%" PRId32 " %" PRId32 "->%" PRId32 " %s at %g", cell->layer.kernel,
                    cell->layer.kernel, cell->layer.in_c, cell->layer.out_c, cell->pattern,
                    cell->rate);
}

/* Of one layer and pattern, by rising rate. */
typedef struct cells {
    size_t n;
    double rate[CELLS_MAX], dense_ns[CELLS_MAX], ratio[CELLS_MAX]; /* sparse over dense */
} cells;

static nas_status read_cells(nas_ctx *ctx, nas_db *db, const char *fingerprint,
                             const nas_db_sparse_layer *layer, const char *pattern, cells *out) {
    nas__stmt s = nas__stmt_prepare(
        ctx, db, "look for what a sparse layer gains",
        "SELECT rate, dense_ns, sparse_ns / dense_ns FROM sparse_cells WHERE fingerprint = ?"
        " AND kernel = ? AND stride = ? AND in_c = ? AND out_c = ? AND out_h = ? AND out_w = ?"
        " AND bits = ? AND pattern = ? ORDER BY rate");
    nas__bind_text(&s, 1, fingerprint);
    bind_layer(&s, 2, layer);
    nas__bind_text(&s, 9, pattern);
    out->n = 0;
    while (out->n < CELLS_MAX && nas__stmt_row(&s)) {
        out->rate[out->n] = nas__column_opt_double(&s, 0).value; /* NOT NULL in the schema */
        out->dense_ns[out->n] = nas__column_opt_double(&s, 1).value;
        out->ratio[out->n++] = nas__column_opt_double(&s, 2).value;
    }
    return nas__stmt_end(&s);
}

/* Where the line from a to b reaches 1. */
static double crossing(const cells *c, size_t a) {
    const double x = c->ratio[a] - 1, y = 1 - c->ratio[a + 1];
    return c->rate[a] + (c->rate[a + 1] - c->rate[a]) * x / (x + y);
}

static nas_opt_double even_of(const cells *c) {
    for (size_t i = c->n; i > 0; i--) {
        if (c->ratio[i - 1] < 1) continue;
        nas_opt_double even = {0};
        if (i < c->n) even = nas_some_double(crossing(c, i - 1));
        return even;
    }
    return nas_some_double(c->rate[0]);
}

static nas_db_sparse_answer answer_of(const cells *c, double rate) {
    enum { NEAR_PPM = 1 }; /* rates are shares of whole groups */
    const double near = NEAR_PPM * 1e-6;
    size_t i = 0;
    while (i + 1 < c->n && c->rate[i + 1] <= rate)
        i++;
    const bool between = i + 1 < c->n && rate > c->rate[i];
    nas_db_sparse_answer a = {.known = true,
                              .measured =
                                  rate >= c->rate[0] - near && rate <= c->rate[c->n - 1] + near,
                              .dense_ns = c->dense_ns[i],
                              .gain = 1 / c->ratio[i],
                              .even = even_of(c)};
    if (between) {
        const double t = (rate - c->rate[i]) / (c->rate[i + 1] - c->rate[i]);
        a.gain = 1 / (c->ratio[i] + t * (c->ratio[i + 1] - c->ratio[i]));
        if (t > 0.5) a.dense_ns = c->dense_ns[i + 1];
    }
    return a;
}

nas_status nas_db_sparse_gain(nas_ctx *ctx, nas_db *db, const char *fingerprint,
                              const nas_db_sparse_layer *layer, const char *pattern, double rate,
                              nas_db_sparse_answer *out) {
    if (!(rate >= 0 && rate <= 1))
        return nas_fail(ctx, NAS_ERR_INVALID, "a rate of zeros is %g; it has to be 0 to 1", rate);
    cells c;
    const nas_status status = read_cells(ctx, db, fingerprint, layer, pattern, &c);
    if (status != NAS_OK) return status;
    *out = (nas_db_sparse_answer){0};
    if (c.n > 0) *out = answer_of(&c, rate);
    return NAS_OK;
}

/* ---- devices -------------------------------------------------------------------------------------------------------------- */

/* The devices with cells: all as text for a message, and those that are meant. */
typedef struct devices {
    nas_buf text;
    size_t all, meant;
    char fingerprint[NAS_SHA256_HEX];
} devices;

static nas_status list_devices(nas_ctx *ctx, nas_db *db, const char *name, devices *out) {
    nas__stmt s = nas__stmt_prepare(ctx, db, "list devices with sparse layers",
                                    "SELECT fingerprint, min(device), count(*) FROM sparse_cells"
                                    " GROUP BY fingerprint ORDER BY min(device), fingerprint");
    while (nas__stmt_row(&s)) {
        char fingerprint[NAS_SHA256_HEX], device[NAS_DB_SPARSE_TEXT_MAX];
        nas__column_text(&s, 0, fingerprint, sizeof fingerprint);
        nas__column_text(&s, 1, device, sizeof device);
        nas_buf_printf(&out->text, "%s%s (%s)", out->all > 0 ? ", " : "", device, fingerprint);
        out->all++;
        if (name != NULL && strcmp(name, device) != 0 && strcmp(name, fingerprint) != 0) continue;
        out->meant++;
        memcpy(out->fingerprint, fingerprint, sizeof fingerprint);
    }
    const nas_status status = nas__stmt_end(&s);
    return status == NAS_OK ? nas_buf_status(ctx, &out->text) : status;
}

nas_status nas_db_sparse_device(nas_ctx *ctx, nas_db *db, const char *name,
                                char out[NAS_SHA256_HEX]) {
    devices d = {0};
    nas_status status = list_devices(ctx, db, name, &d);
    if (status == NAS_OK && d.all == 0)
        status = nas_fail(ctx, NAS_ERR_NOTFOUND,
                          "no sparse layer was measured into this file: nas-compile --break-even "
                          "--layers MODEL.onnx --db FILE does");
    if (status == NAS_OK && d.all > 0 && d.meant == 0)
        status = nas_fail(ctx, NAS_ERR_NOTFOUND,
                          "no sparse layer was measured on '%s'; there are %s", name, d.text.data);
    if (status == NAS_OK && d.meant > 1)
        status =
            nas_fail(ctx, NAS_ERR_INVALID,
                     "%zu devices %s: name one, by its fingerprint where names are the same: %s",
                     d.meant, name == NULL ? "have cells" : "have that name", d.text.data);
    if (status == NAS_OK) memcpy(out, d.fingerprint, sizeof d.fingerprint);
    nas_buf_deinit(&d.text);
    return status;
}
