/* emit_prelude.c - what does not depend on the layers: includes and the pool; the vector type; helpers that copy rows,
 * find rings, zero the surroundings of the image and keep margins between strips. */
#include "compiler/compiler_internal.h"

#include <string.h>

static const char includes[] = "#ifndef _POSIX_C_SOURCE\n"
                               "#define _POSIX_C_SOURCE 200809L\n"
                               "#endif\n"
                               "#include \"model.h\"\n\n"
                               "#include <errno.h>\n"
                               "#include <stdint.h>\n"
                               "#include <string.h>\n"
                               "#include <time.h>\n\n"
                               "extern const %s model_weights[];\n\n";

/* The driver sees the pool as bytes, and need not parse the headers of threads. */
static const char workers_type[] =
    "typedef void (*workers_job)(void *arg, int thread, int threads);\n"
    "typedef long long workers[512];\n\n";

static const char workers_functions[] =
    "typedef char pool_fits[sizeof(pool) <= 512 * sizeof(long long) ? 1 : -1];\n\n"
    "KERNEL int workers_open(void *workers, int threads) {\n"
    "    return pool_open(workers, threads);\n"
    "}\n\n"
    "KERNEL void workers_run(void *workers, void (*job)(void *arg, int thread, int threads), void "
    "*arg) {\n"
    "    pool_run(workers, job, arg);\n"
    "}\n\n"
    "KERNEL void workers_meet(void *workers) {\n"
    "    pool_barrier(workers);\n"
    "}\n"
    "KERNEL void workers_close(void *workers) {\n"
    "    pool_close(workers);\n"
    "}\n\n";

static const char vector_helpers[] =
    "typedef vf vf_anywhere __attribute__((aligned(4), may_alias));\n\n"
    "HELPER vf load(const float *p) {\n"
    "    return *(const vf_anywhere *)p;\n"
    "}\n"
    "HELPER void store(float *p, vf v) {\n"
    "    *(vf_anywhere *)p = v;\n"
    "}\n"
    "HELPER vf splat(float s) {\n"
    "    return s - (vf){0};\n"
    "}\n";

static const char generic_relu[] = "HELPER vf relu(vf v) {\n"
                                   "    return (vf)((vi)v & (v > 0));\n"
                                   "}\n";

static const char generic_prelu[] =
    "HELPER vf prelu(vf v, vf slope) {\n"
    "    const vi above = v > 0;\n"
    "    return (vf)(((vi)v & above) | ((vi)(v * slope) & ~above));\n"
    "}\n";

/* gcc 12 makes two instructions of a vector maximum and five of a PReLU; the intrinsics' header alone would take a
 * third of the compile time. Operand order: max(v, 0) is 0 for a NaN, like v > 0 ? v : 0. */
static const char avx512_acts[] =
    "HELPER vf relu(vf v) {\n"
    "    __asm__(\"vmaxps %1, %0, %0\" : \"+v\"(v) : \"v\"((vf){0}));\n"
    "    return v;\n"
    "}\n"
    "HELPER vf prelu(vf v, vf slope) { /* multiplies the lanes that are <= 0 */\n"
    "    __asm__(\"vcmpps $2, %2, %0, %%k1\\n\\tvmulps %1, %0, %0%{%%k1%}\" : \"+v\"(v)\n"
    "            : \"v\"(slope), \"v\"((vf){0}) : \"k1\");\n"
    "    return v;\n"
    "}\n";

static const char avx_relu[] = "HELPER vf relu(vf v) {\n"
                               "    __asm__(\"vmaxps %1, %0, %0\" : \"+x\"(v) : \"x\"((vf){0}));\n"
                               "    return v;\n"
                               "}\n";

static const char shuffle_macro[] =
    "#if defined(__clang__) || __GNUC__ >= 12\n"
    "#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)\n"
    "#else\n"
    "#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (vi){__VA_ARGS__})\n"
    "#endif\n\n";

/* At 16 registers gcc thinks that loading a vector again is free, loads weights long before they are used and keeps one of two
 * equal start values in memory: 3x3 tiles of 3x3 16 -> 16 reached half the peak. So the instructions of the inner loops are
 * given, in their order; sums begin as values of their own. */
static const char multiply_add[] =
    "#if defined(__FMA__) && !defined(__AVX512F__)\n"
    "#define SPLAT(w, p) __asm__ volatile(\"vbroadcastss %1, %0\" : \"=x\"(w) : \"m\"(*(p)))\n"
    "#define MADD(sum, x, w) \\\n"
    "    __asm__ volatile(\"vfmadd231ps %2, %1, %0\" : \"+x\"(sum) : \"x\"(x), \"x\"(w))\n"
    "#define OWN(sum) __asm__ volatile(\"\" : \"+x\"(sum))\n"
    "#else\n"
    "#define SPLAT(w, p) ((w) = splat(*(p)))\n"
    "#define MADD(sum, x, w) ((sum) += (x) * (w))\n"
    "#define OWN(sum) ((void)0)\n"
    "#endif\n\n";

static const char row_helpers[] =
    "/* Row y of a ring of `rows` rows. */\n"
    "KERNEL float *ring_row(float *ring, int rows, size_t row_floats, int y) {\n"
    "    return ring + (size_t)((unsigned)y % (unsigned)rows) * row_floats;\n"
    "}\n\n"
    "/* Rows y - half .. y + half of a ring; outside the image there are none: only [*low, *high) "
    "of r is set. */\n"
    "KERNEL void window(const float **r, float *ring, int rows, size_t row_floats, int y, int "
    "half, int height,\n"
    "                   int *low, int *high) {\n"
    "    *low = y < half ? half - y : 0;\n"
    "    *high = y + half < height ? 2 * half + 1 : height - y + half;\n"
    "    for (int k = *low; k < *high; k++) r[k] = ring_row(ring, rows, row_floats, y - half + "
    "k);\n"
    "}\n\n"
    "/* Columns of a row that lie outside the image read as zero; `x` is the image column of "
    "row[0]. */\n"
    "KERNEL void zero_outside(float *row, int channels, size_t pitch, int columns, int x, int "
    "width) {\n"
    "    const int left = x >= 0 ? 0 : -x < columns ? -x : columns;\n"
    "    const int right = width - x > columns ? columns : width - x > left ? width - x : left;\n"
    "    if (left == 0 && right == columns) return;\n"
    "    for (int c = 0; c < channels; c++, row += pitch) {\n"
    "        memset(row, 0, (size_t)left * sizeof *row);\n"
    "        memset(row + right, 0, (size_t)(columns - right) * sizeof *row);\n"
    "    }\n"
    "}\n\n"
    "/* The last `left` columns of a strip are the left margin of the next one: swap them through "
    "`kept`. */\n"
    "KERNEL void keep_margin(float *row, float *kept, int channels, size_t pitch, int "
    "columns, int left, int first) {\n"
    "    for (int c = 0; c < channels; c++, row += pitch, kept += left) {\n"
    "        for (int i = 0; i < left; i++) {\n"
    "            row[i - left] = first ? 0 : kept[i];\n"
    "            kept[i] = row[columns - left + i];\n"
    "        }\n"
    "    }\n"
    "}\n\n";

static const char copy_helpers[] =
    "/* One row of the image, shifted, zero outside; `x` is the image column of row[0]. */\n"
    "KERNEL void copy_in(float *row, const float *in, int channels, size_t pitch, size_t "
    "plane, int columns, int left,\n"
    "                    int x, int width, float shift) {\n"
    "    const int from = x - left < 0 ? -x : -left, to = width - x < columns ? width - x : "
    "columns;\n"
    "    for (int c = 0; c < channels; c++, row += pitch, in += plane) {\n"
    "        for (int i = -left; i < from; i++) row[i] = 0;\n"
    "        int i = from;\n"
    "        for (; i + LANES <= to; i += LANES) store(row + i, load(in + x + i) + shift);\n"
    "        for (; i < to; i++) row[i] = in[x + i] + shift;\n"
    "        for (i = to > -left ? to : -left; i < columns; i++) row[i] = 0;\n"
    "    }\n"
    "}\n\n"
    "/* Part of a row that lies inside the image, to the image; `x` is the image column of row[0]. "
    "*/\n"
    "KERNEL void copy_out(float *out, const float *row, int channels, size_t pitch, size_t "
    "plane, int columns, int x,\n"
    "                     int width) {\n"
    "    const int from = x < 0 ? -x : 0, to = width - x < columns ? width - x : columns;\n"
    "    for (int c = 0; c < channels && from < to; c++) {\n"
    "        memcpy(out + (size_t)c * plane + x + from, row + (size_t)c * pitch + from,\n"
    "               (size_t)(to - from) * sizeof *row);\n"
    "    }\n"
    "}\n\n";

static const char group_helpers[] =
    "/* `n` rows from y on of a ring, for a kernel that reads them at once; `outside` for those "
    "outside the image. */\n"
    "KERNEL void group_in(const float **r, const float *ring, int rows, size_t row_floats, int y, "
    "int n, int height,\n"
    "                     const float *outside) {\n"
    "    for (int k = 0; k < n; k++)\n"
    "        r[k] = y + k < 0 || y + k >= height ? outside : ring + (size_t)((y + k) % rows) * "
    "row_floats;\n"
    "}\n"
    "/* The same for a kernel that makes rows; NULL for those outside [from, end). */\n"
    "KERNEL void group_out(float **r, float *ring, int rows, size_t row_floats, int y, int n, int "
    "from, int end) {\n"
    "    for (int k = 0; k < n; k++)\n"
    "        r[k] = y + k < from || y + k >= end ? NULL : ring + (size_t)((y + k) % rows) * "
    "row_floats;\n"
    "}\n\n";

/* Activations, with the instructions of the target where the vector extensions do not lead to them. */
static void emit_acts(int32_t bytes, nas_buf *out) {
    switch (bytes) {
    case 64:
        nas_buf_printf(out, "#if defined(__AVX512F__)\n%s#else\n%s%s#endif\n", avx512_acts,
                       generic_relu, generic_prelu);
        break;
    case 32:
        nas_buf_printf(out, "#if defined(__AVX__)\n%s#else\n%s#endif\n%s", avx_relu, generic_relu,
                       generic_prelu);
        break;
    default: nas_buf_printf(out, "%s%s", generic_relu, generic_prelu); break;
    }
}

void nas__emit_shuffle(nas_buf *out) {
    nas_buf_puts(out, shuffle_macro);
}

void nas__emit_head(const nas__program *p, nas_buf *out) {
    nas_buf_printf(out, includes, nas__real(p));
    if (p->max_threads > 1) nas_buf_puts(out, workers_type);
}

void nas__emit_vectors(const nas__program *p, nas_buf *out) {
    if (p->dtype == NAS_DTYPE_FP16) {
        nas__emit_half_vectors(p, out);
        return;
    }
    const int32_t bytes = p->target->vector_bytes;
    nas_buf_printf(out, "enum { LANES = %d };\n", bytes / 4);
    nas_buf_printf(out, "typedef float vf __attribute__((vector_size(%d)));\n", bytes);
    nas_buf_printf(out, "typedef int vi __attribute__((vector_size(%d)));\n", bytes);
    nas_buf_puts(out, vector_helpers);
    emit_acts(bytes, out);
    nas_buf_puts(out, "\n");
    nas_buf_puts(out, shuffle_macro);
    nas_buf_puts(out, multiply_add);
}

/* A text about rows of floats, of another type. */
static void emit_typed(const char *text, const char *real, nas_buf *out) {
    static const char word[] = "float ";
    for (const char *next = strstr(text, word); next != NULL; next = strstr(text, word)) {
        nas_buf_append(out, text, (size_t)(next - text));
        nas_buf_printf(out, "%s ", real);
        text = next + sizeof word - 1;
    }
    nas_buf_puts(out, text);
}

void nas__emit_row_helpers(const nas__program *p, nas__sources *out) {
    nas__unit *unit = nas__sources_unit(out, "row_helpers");
    if (unit == NULL) return;
    nas_buf_puts(&unit->text, "#include <string.h>\n\n");
    emit_typed(row_helpers, nas__real(p), &unit->text);
    if (p->dtype == NAS_DTYPE_FP16) {
        nas__emit_half_copies(&unit->text);
    } else {
        nas_buf_puts(&unit->text, copy_helpers);
    }
}

void nas__emit_group_helpers(const nas__program *p, nas__sources *out) {
    nas__unit *unit = nas__sources_unit(out, "row_groups");
    if (unit != NULL) emit_typed(group_helpers, nas__real(p), &unit->text);
}

void nas__emit_workers_type(nas_buf *out) {
    nas_buf_puts(out, workers_type);
}

void nas__emit_workers(nas__sources *out) {
    nas__unit *unit = nas__sources_unit(out, "workers");
    if (unit == NULL) return;
    nas_buf_puts(&unit->text, "enum { POOL_THREADS_MAX = 64 };\n\n");
    nas_buf_puts(&unit->text, nas__rt_file("pool.c"));
    nas_buf_puts(&unit->text, "\n");
    nas_buf_puts(&unit->text, workers_functions);
}
