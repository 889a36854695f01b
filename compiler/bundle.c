/* bundle.c - the network as files for an app: model.c, model.h, weights.c, example.c, README.txt. */
#include "compiler/compiler_internal.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

static nas_status put(nas_ctx *ctx, const char *dir, const char *name, const char *text,
                      size_t len) {
    char path[1024];
    const int n = snprintf(path, sizeof path, "%s/%s", dir, name);
    if (n < 0 || (size_t)n >= sizeof path)
        return nas_fail(ctx, NAS_ERR_RANGE, "bundle folder '%s': path too long", dir);
    return nas_file_write(ctx, path, text, len, 0644);
}

static void emit_readme(const nas__form *f, const nas_compile_options *o, const char *compiler,
                        nas_buf *out) {
    const nas_graph *g = nas__form_graph(f);
    const nas_shape *in = &nas_graph_node(g, nas_graph_input(g))->shape;
    const nas_shape *result = &nas_graph_node(g, nas_graph_output(g))->shape;
    nas_buf_printf(out, "Network '%s' as C for target %s (%s).\n\n", nas_graph_name(g),
                   o->target->name, o->target->flags);
    nas_buf_printf(out,
                   "Build the example:\n\n    %s -O2 -std=gnu99 -ffp-contract=fast %s -pthread "
                   "model.c weights.c "
                   "example.c -o example\n\n",
                   compiler, o->target->flags);
    nas_buf_printf(out,
                   "Run it on raw 32-bit floats, planar [channels][rows][columns]:\n\n    "
                   "./example in.raw out.raw\n\n"
                   "in.raw   %d x %d x %d\nout.raw  %d x %d x %d\n\n",
                   in->c, in->h, in->w, result->c, result->h, result->w);
    nas_buf_printf(out,
                   "In an app: allocate MODEL_ARENA_BYTES (%zu bytes, aligned to 64), model_open "
                   "once with 1..%d\n"
                   "threads, model_run for each frame, model_close at the end. Nothing else is "
                   "allocated; no run-time\n"
                   "library is needed besides the C library and pthreads. -O3 and -ffast-math make "
                   "it slower.\n",
                   nas__form_arena_bytes(f), o->max_threads);
}

/* ---- size ------------------------------------------------------------------------------------------------------- */

/* The network in a form, its code, and how large that is. */
typedef struct bundle {
    nas__form form;
    nas__sources sources;
    nas__code_size size;
} bundle;

static void bundle_free(bundle *b) {
    nas__sources_deinit(&b->sources);
    nas__form_free(&b->form);
}

static nas_status make(nas_ctx *ctx, const nas_graph *graph, const nas_compile_options *o,
                       bundle *b) {
    *b = (bundle){0};
    nas_status status = nas__form_lower(ctx, graph, o, &b->form);
    if (status == NAS_OK) status = nas__form_emit(ctx, &b->form, &b->sources);
    if (status != NAS_OK) bundle_free(b);
    return status;
}

static nas_status too_large(nas_ctx *ctx, const nas__code_size *size, uint64_t most) {
    nas_buf largest = {0};
    for (int32_t i = 0; i < size->n_largest; i++)
        nas_buf_printf(&largest, "%s%s %" PRIu64, i > 0 ? ", " : "", size->largest[i],
                       size->largest_bytes[i]);
    const nas_status status =
        nas_fail(ctx, NAS_ERR_RANGE,
                 "the code takes at least %" PRIu64 " bytes, more than the bound of %" PRIu64
                 "; the largest kernels: %s. Allow more, or a network of fewer distinct layers",
                 size->bytes, most, largest.data != NULL ? largest.data : "");
    nas_buf_deinit(&largest);
    return status;
}

/* Slower kernels of less text, until the code fits: the price of a byte rises. */
static nas_status make_smaller(nas_ctx *ctx, const nas_graph *graph, const nas_compile_options *o,
                               bundle *b) {
    static const double first_price = 0.25, rise = 6;
    enum { ROUNDS = 7 };
    nas_compile_options priced = *o;
    nas__code_size least = {.bytes = UINT64_MAX};
    for (int32_t round = 0; round < ROUNDS; round++) {
        bundle next;
        nas__code_size units = {0};
        priced.code_price = round == 0 ? first_price : priced.code_price * rise;
        nas_status status = make(ctx, graph, &priced, &next);
        if (status != NAS_OK) return status;
        status = nas__build_code(ctx, &priced, &next.sources, false, &units);
        const bool near = units.bytes / 2 <= o->max_code_bytes; /* one file is smaller than units */
        if (status == NAS_OK && near)
            status = nas__build_code(ctx, &priced, &next.sources, true, &next.size);
        if (status == NAS_OK && near && next.size.bytes <= o->max_code_bytes) {
            bundle_free(b);
            *b = next;
            return NAS_OK;
        }
        bundle_free(&next);
        if (status != NAS_OK) return status;
        if (near) units.bytes = next.size.bytes;
        if (units.bytes < least.bytes) least = units;
    }
    return too_large(ctx, &least, o->max_code_bytes);
}

/* Is the compiler there? Without a bound it need not be. */
static nas_status find_toolchain(nas_ctx *ctx, const nas_compile_options *o, bool *found,
                                 nas_bundle_facts *facts) {
    nas__toolchain t;
    nas_ctx *quiet = nas_ctx_child(ctx);
    if (quiet == NULL) return nas_fail(ctx, NAS_ERR_NOMEM, "no memory for a context");
    nas_status status = nas__toolchain_open(quiet, o, &t);
    *found = status == NAS_OK;
    if (status == NAS_ERR_TOOLCHAIN && o->max_code_bytes == 0) {
        status = NAS_OK;
    } else if (status != NAS_OK) {
        status = nas_fail(ctx, status, "size of the code: %s", nas_ctx_message(quiet));
    } else {
        (void)snprintf(facts->compiler, sizeof facts->compiler, "%s", t.version);
        (void)snprintf(facts->flags, sizeof facts->flags, "%s", t.flags);
    }
    nas_ctx_free(quiet);
    return status;
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

static nas_status write_files(nas_ctx *ctx, const bundle *b, const nas_compile_options *options,
                              const char *compiler, const char *dir) {
    nas_buf c = {0}, weights = {0}, readme = {0};
    const char *example = nas__rt_file("example.c");
    nas_status status =
        example != NULL ? NAS_OK : nas_fail(ctx, NAS_ERR_INTERNAL, "example.c is not embedded");
    if (status == NAS_OK) {
        nas__sources_text(&b->sources, &c);
        status = nas_buf_status(ctx, &c);
    }
    if (status == NAS_OK)
        status = nas__form_emit_weights_c(ctx, &b->form, options->target, &weights);
    if (status == NAS_OK) {
        emit_readme(&b->form, options, compiler, &readme);
        if (b->size.bytes > 0)
            nas_buf_printf(&readme,
                           "\nSize: %" PRIu64 " bytes of code and its constants, %zu bytes of "
                           "weights.\n",
                           b->size.bytes, nas__form_weight_bytes(&b->form));
        status = nas_buf_status(ctx, &readme);
    }
    if (status == NAS_OK) status = nas_mkdirs(ctx, dir);
    if (status == NAS_OK) status = put(ctx, dir, "model.c", c.data, c.len);
    if (status == NAS_OK)
        status = put(ctx, dir, "model.h", b->sources.header.data, b->sources.header.len);
    if (status == NAS_OK) status = put(ctx, dir, "weights.c", weights.data, weights.len);
    if (status == NAS_OK) status = put(ctx, dir, "example.c", example, strlen(example));
    if (status == NAS_OK) status = put(ctx, dir, "README.txt", readme.data, readme.len);
    nas_buf_deinit(&readme);
    nas_buf_deinit(&weights);
    nas_buf_deinit(&c);
    return status;
}

nas_status nas_emit_bundle(nas_ctx *ctx, const nas_graph *graph, const nas_compile_options *options,
                           const char *dir, nas_bundle_facts *facts) {
    if (options->target == NULL) return nas_fail(ctx, NAS_ERR_INVALID, "bundle: no target");
    nas_bundle_facts f = {0};
    bundle b;
    bool sized = facts != NULL || options->max_code_bytes > 0;
    nas_status status = sized ? find_toolchain(ctx, options, &sized, &f) : NAS_OK;
    if (status == NAS_OK) status = make(ctx, graph, options, &b);
    if (status != NAS_OK) return status;
    if (sized) status = nas__build_code(ctx, options, &b.sources, true, &b.size);
    if (status == NAS_OK && options->max_code_bytes > 0 && b.size.bytes > options->max_code_bytes) {
        status = make_smaller(ctx, graph, options, &b);
        f.made_smaller = true;
    }
    const char *compiler =
        options->compiler != NULL ? options->compiler : options->target->compiler;
    if (status == NAS_OK) status = write_files(ctx, &b, options, compiler, dir);
    f.code_known = sized;
    f.code_bytes = b.size.bytes;
    f.weight_bytes = nas__form_weight_bytes(&b.form);
    f.arena_bytes = nas__form_arena_bytes(&b.form);
    bundle_free(&b);
    if (status == NAS_OK && facts != NULL) *facts = f;
    return status;
}
