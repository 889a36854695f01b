/* latency_data.h - rows of one series of the database as tables for the models. Values in ms or mJ. Shared inside tools/. */
#ifndef NAS_TOOLS_LATENCY_DATA_H
#define NAS_TOOLS_LATENCY_DATA_H

#include "db/db.h"
#include "tools/latency_encode.h"

typedef struct nas_latency_data {
    nas_db_series series;
    nas_db_value *rows; /* by architecture, each once */
    size_t n;
} nas_latency_data;

nas_status nas_latency_data_load(nas_ctx *ctx, nas_db *db, const nas_db_series *series,
                                 nas_latency_data *out);
void nas_latency_data_deinit(nas_latency_data *data);
/* nas_latency_data_find - the row of an architecture, n when there is none. */
size_t nas_latency_data_find(const nas_latency_data *data, const char *arch);

/* Some rows as a table that owns its numbers. */
typedef struct nas_owned_table {
    nas_latency_table table;
    double *x, *y;
} nas_owned_table;
/* nas_latency_data_table - rows[index[0..count)]; features by the encoder (its life bounds the table's) or, of networks,
 * as stored. NOTFOUND for a network without features. */
nas_status nas_latency_data_table(nas_ctx *ctx, const nas_encoder *encoder,
                                  const nas_latency_data *data, const size_t *index, size_t count,
                                  nas_owned_table *out);
void nas_owned_table_deinit(nas_owned_table *table);

/* nas_features_json - numbers as a JSON array, and back (PARSE unless it has n finite numbers). */
void nas_features_json(const double *x, size_t n, nas_buf *out);
nas_status nas_features_parse(nas_ctx *ctx, const char *text, size_t n, double *x);

/* nas_shuffled - index: a permutation of 0..n-1, by seed and purpose alone. */
void nas_shuffled(uint64_t seed, const char *purpose, size_t n, size_t *index);

#endif
