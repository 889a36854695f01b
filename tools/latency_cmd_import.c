/* latency_cmd_import.c - `nas-latency import`: files into rows, all of them or none. */
#include "tools/csv.h"
#include "tools/latency_commands.h"
#include "tools/latency_data.h"

#include <string.h>

enum { FILE_BYTES_MAX = 1 << 30 };

typedef nas_status (*parser)(nas_ctx *ctx, const nas_encoder *encoder,
                             const nas_import_options *options, char *text, size_t len,
                             nas_import *out);

static nas_status find_parser(nas_ctx *ctx, const char *format, parser *out) {
    static const struct {
        const char *name;
        parser parse;
    } known[] = {{"csv", nas_import_csv},
                 {"benchmark_model", nas_import_benchmark_model},
                 {"google-benchmark", nas_import_google_benchmark}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(known[i].name, format) != 0) continue;
        *out = known[i].parse;
        return NAS_OK;
    }
    return nas_fail(ctx, NAS_ERR_INVALID,
                    "format '%s' is unknown: use csv, benchmark_model or google-benchmark", format);
}

/* Features of the network that --onnx names, as JSON; empty without it. */
static nas_status onnx_features(nas_ctx *ctx, const nas_encoder *encoder, const char *path,
                                nas_buf *out) {
    if (path == NULL) return NAS_OK;
    size_t n = 0;
    (void)nas_encoder_features(encoder, &n);
    double *x = nas_alloc_array(ctx, n, sizeof *x);
    if (x == NULL) return NAS_ERR_NOMEM;
    const nas_onnx_import_options options = nas_onnx_import_options_default();
    nas_graph *graph = NULL;
    nas_status status = nas_onnx_import(ctx, path, &options, &graph);
    if (status == NAS_OK) status = nas_encoder_graph_row(ctx, encoder, graph, x);
    if (status == NAS_OK) {
        nas_features_json(x, n, out);
        status = nas_buf_status(ctx, out);
    }
    nas_graph_free(graph);
    nas_free(x);
    return nas_wrap(ctx, status, "%s", path);
}

/* Rows the database has already are mistakes, unless they are to be replaced. */
static nas_status check_known(nas_ctx *ctx, nas_db *db, int64_t series, const nas_import *import,
                              const char *file) {
    nas_buf known = {0};
    size_t n = 0;
    nas_status status = NAS_OK;
    for (size_t i = 0; i < import->n && status == NAS_OK; i++) {
        nas_opt_double value = {0};
        status = nas_db_value_get(ctx, db, series, import->rows[i].arch, &value);
        if (status != NAS_OK || !value.is_set || n++ >= NAS_IMPORT_MISTAKES) continue;
        nas_buf_printf(&known, "\n  row %zu: architecture '%.60s'", import->rows[i].row,
                       import->rows[i].arch);
    }
    if (status == NAS_OK && n > 0) {
        status = nas_fail(ctx, NAS_ERR_INVALID,
                          "%s: %zu of %zu rows are in the database already, nothing is imported "
                          "(--replace takes the new ones)%s%s",
                          file, n, import->n, known.data == NULL ? "" : known.data,
                          n > NAS_IMPORT_MISTAKES ? "\n  ..." : "");
    }
    nas_buf_deinit(&known);
    return status;
}

static nas_status store(nas_ctx *ctx, nas_db *db, const nas_latency_args *args, int64_t series,
                        const nas_import *import, const char *file, const char *features) {
    nas_status status = NAS_OK;
    if (!args->replace) status = check_known(ctx, db, series, import, file);
    char sha[NAS_SHA256_HEX] = "";
    int64_t id = 0;
    if (status == NAS_OK) status = nas_sha256_file_hex(ctx, file, sha);
    if (status == NAS_OK) status = nas_db_import_put(ctx, db, file, args->format, sha, &id);
    for (size_t i = 0; i < import->n && status == NAS_OK; i++) {
        const nas_db_value row = {.series_id = series,
                                  .import_id = id,
                                  .arch = import->rows[i].arch,
                                  .value = import->rows[i].value,
                                  .features = (char *)(uintptr_t)features};
        status = nas_db_value_put(ctx, db, &row, args->replace);
    }
    return status;
}

/* One file, parsed and checked. */
static nas_status read_file(nas_ctx *ctx, const nas_latency_args *args, const nas_encoder *encoder,
                            parser parse, const char *file, nas_import *out) {
    const nas_import_options options = {.arch_columns = args->arch_columns,
                                        .value_column = args->value_column,
                                        .unit = args->unit,
                                        .arch = args->arch};
    nas_buf text = {0};
    nas_status status = nas_read_maybe_gzip(ctx, file, FILE_BYTES_MAX, &text);
    if (status == NAS_OK)
        status = nas_wrap(ctx, parse(ctx, encoder, &options, text.data, text.len, out), "%s", file);
    if (status == NAS_OK) status = nas_import_check(ctx, out, file);
    nas_buf_deinit(&text);
    return status;
}

nas_status nas_latency_read_csv(nas_ctx *ctx, const nas_latency_args *args,
                                const nas_encoder *encoder, const char *file, nas_import *out) {
    return read_file(ctx, args, encoder, nas_import_csv, file, out);
}

static nas_status import_file(nas_ctx *ctx, nas_db *db, const nas_latency_args *args,
                              const nas_encoder *encoder, parser parse, int64_t series,
                              const char *features, const char *file, size_t *n) {
    nas_import import = {0};
    nas_status status = read_file(ctx, args, encoder, parse, file, &import);
    if (status == NAS_OK && features != NULL && import.n != 1)
        status = nas_fail(ctx, NAS_ERR_INVALID,
                          "%s: holds %zu results, but --onnx names one network", file, import.n);
    if (status == NAS_OK) status = store(ctx, db, args, series, &import, file, features);
    *n += import.n;
    nas_import_deinit(&import);
    return status;
}

static nas_status check_args(nas_ctx *ctx, const nas_latency_args *args) {
    if (args->n_files == 0) return nas_fail(ctx, NAS_ERR_INVALID, "which file? Give one or more");
    if (strcmp(args->format, "csv") == 0) return NAS_OK;
    if (args->arch_columns != NULL || args->value_column != NULL || args->unit != NAS_UNIT_NONE)
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "--arch-col, --value-col and --unit are of CSV files: a log says its own");
    return NAS_OK;
}

nas_status nas_latency_import(nas_ctx *ctx, nas_db *db, const nas_latency_args *args) {
    parser parse = NULL;
    nas_encoder *encoder = NULL;
    nas_buf features = {0};
    nas_status status = check_args(ctx, args);
    if (status == NAS_OK) status = find_parser(ctx, args->format, &parse);
    const bool is_csv = parse == nas_import_csv;
    const char *space = args->space != NULL ? args->space : is_csv ? NULL : "network";
    if (status == NAS_OK && space == NULL)
        status = nas_fail(ctx, NAS_ERR_INVALID, "--space NAME says what an architecture is: %s",
                          "nb201, fbnet:32x32, ofa, kernel, network ...");
    if (status == NAS_OK) status = nas_encoder_new(ctx, space, &encoder);
    if (status == NAS_OK) status = onnx_features(ctx, encoder, args->onnx, &features);
    if (status == NAS_OK) status = nas_db_begin(ctx, db);
    int64_t series = 0;
    size_t n = 0;
    const nas_db_quantity quantity =
        args->unit == NAS_UNIT_NONE ? args->quantity : nas_unit_quantity(args->unit);
    if (status == NAS_OK)
        status = nas_db_series_put(ctx, db, args->device, space, quantity, &series);
    for (size_t i = 0; i < args->n_files && status == NAS_OK; i++)
        status =
            import_file(ctx, db, args, encoder, parse, series, features.data, args->files[i], &n);
    if (status == NAS_OK) status = nas_db_commit(ctx, db);
    if (status != NAS_OK) nas_db_rollback(db);
    nas_encoder_free(encoder);
    nas_buf_deinit(&features);
    if (status != NAS_OK) return status;
    nas_buf json = {0};
    nas_json j = nas_json_begin(&json);
    nas_json_object(&j);
    nas_json_key(&j, "device");
    nas_json_string(&j, args->device);
    nas_json_key(&j, "space");
    nas_json_string(&j, space);
    nas_json_key(&j, "quantity");
    nas_json_string(&j, nas_db_quantity_text(quantity));
    nas_json_key(&j, "rows");
    nas_json_int(&j, (int64_t)n);
    nas_json_object_end(&j);
    status = nas_latency_print(ctx, args, &json);
    nas_buf_deinit(&json);
    return status;
}
